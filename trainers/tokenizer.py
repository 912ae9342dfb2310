"""Between conversations and token ids, without ever tokenising twice.

A :class:`Codec` wraps a Hugging Face tokenizer that has a chat template. A conversation becomes ids once
(:meth:`Codec.render`); from then on it grows as ``prompt + sampled output + suffix(new messages)``, so the ids that
a policy was conditioned on are those it will be trained on. :func:`byte_tokenizer` makes the tiny default: 256 bytes
and six control tokens, nothing to download and nothing to train.

>>> from palmette.agents.conversation import Message
>>> codec = Codec(byte_tokenizer())
>>> first = codec.render([Message(role="user", content="find 3")])
>>> said = (*codec.encode("read 3"), codec.eos_id)
>>> more = codec.suffix([Message(role="tool", content="goto 7")], closed=True)
>>> codec.text(first + said + more)
'<|user|>find 3<|eos|><|assistant|>read 3<|eos|><|tool|>goto 7<|eos|><|assistant|>'
"""

# The annotations of Hugging Face's libraries are partial.
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, cast

from palmette.agents.conversation import Message, ToolCall, ToolSchema

CONTROL_TOKENS = ("<|pad|>", "<|eos|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>")

# One control token opens a message, one closes it. The closing token of an assistant's message stands inside the
# `generation` block: a policy has to learn to stop.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{ '<|' + message['role'] + '|>' }}"
    "{%- if message['role'] == 'assistant' -%}"
    "{% generation %}{{ message['content'] + '<|eos|>' }}{% endgeneration %}"
    "{%- else -%}{{ message['content'] + '<|eos|>' }}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|assistant|>' }}{%- endif -%}"
)

# A zero-width space after its first character makes a control token's text ordinary text.
_DEFUSED = "\u200b"


class Tokenizer(Protocol):
    """The part of ``transformers.PreTrainedTokenizerFast`` that a codec needs."""

    eos_token_id: int | None
    pad_token_id: int | None
    chat_template: str | None
    all_special_tokens: list[str]

    def apply_chat_template(
        self,
        conversation: list[dict[str, object]],
        tools: list[dict[str, object]] | None = None,
        *,
        add_generation_prompt: bool = False,
        tokenize: bool = True,
        return_dict: bool = True,
    ) -> str: ...

    def encode(
        self, text: str, *, add_special_tokens: bool = True, split_special_tokens: bool = False
    ) -> list[int]: ...

    def decode(
        self, token_ids: list[int], skip_special_tokens: bool = False, *, clean_up_tokenization_spaces: bool = False
    ) -> str: ...

    def save_pretrained(self, save_directory: str) -> object: ...

    def __len__(self) -> int: ...


def byte_tokenizer() -> Tokenizer:
    """A byte-level tokenizer of 262 ids, fit for any text: the control tokens 0-5, then the 256 bytes."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate((*CONTROL_TOKENS, *alphabet))}
    backend = Backend(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)  # pyright: ignore[reportAttributeAccessIssue]
    backend.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<|pad|>",
        eos_token="<|eos|>",
        additional_special_tokens=list(CONTROL_TOKENS[2:]),
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    return cast(Tokenizer, tokenizer)


class Codec:
    """Conversations to ids and back, prefix-preserving.

    Control tokens are only ever written by the chat template: where a message's text contains one (a file that holds
    ``<|eos|>``, say), it is made ordinary text, so nobody can forge the end of a turn.

    Raises:
        ValueError: the tokenizer has no chat template, or the template does not end an assistant's message with the
            end-of-sequence token, or rewrites earlier messages when later ones are added.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        """The wrapped tokenizer, for trainers."""
        if not tokenizer.chat_template:
            raise ValueError("the tokenizer has no chat template; set tokenizer.chat_template, or use byte_tokenizer()")
        if tokenizer.eos_token_id is None:
            raise ValueError("the tokenizer has no end-of-sequence token; set tokenizer.eos_token")
        self.eos_id: int = tokenizer.eos_token_id
        self.pad_id: int = self.eos_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        self._control = re.compile("|".join(re.escape(token) for token in tokenizer.all_special_tokens))
        self._suffixes: dict[tuple[tuple[Message, ...], bool], tuple[int, ...]] = {}
        self.suffix([Message(role="user", content="x")], closed=True)  # a template that does not fit fails here

    @classmethod
    def load(cls, path: str | Path) -> Codec:
        """The codec of a policy directory.

        Raises:
            ValueError: no tokenizer is there.
        """
        from transformers import PreTrainedTokenizerFast

        if not (Path(path) / "tokenizer.json").is_file():
            raise ValueError(
                f"{path} holds no tokenizer.json; give a directory made by palmette.trainers.policy.create"
            )
        # Not AutoTokenizer: that one imports torch, which processes that only talk do not need.
        return cls(cast(Tokenizer, PreTrainedTokenizerFast.from_pretrained(str(path), local_files_only=True)))

    def render(self, messages: Sequence[Message], tools: Sequence[ToolSchema] = ()) -> tuple[int, ...]:
        """The ids of a whole conversation, up to and including the words that invite the assistant to speak."""
        return self._ids(messages, tools, invite=True)

    def suffix(self, messages: Sequence[Message], *, closed: bool) -> tuple[int, ...]:
        """The ids that follow a sampled reply when ``messages`` are added and the assistant is invited again.

        ``closed`` tells whether the reply ended with the end-of-turn token; where a limit cut it off, the suffix
        begins with that token.
        """
        key = (tuple(messages), closed)
        if (known := self._suffixes.get(key)) is not None:
            return known
        # Some templates refuse a tool's answer without the call that it answers.
        calls = tuple(ToolCall(id=m.tool_call_id, name="x", arguments="{}") for m in messages if m.tool_call_id)
        before = (
            Message(role="user", content="x"),
            Message(role="assistant", content="x", tool_calls=calls),
        )
        prefix = self._ids(before, (), invite=False)
        whole = self._ids((*before, *messages), (), invite=True)
        if self.eos_id not in prefix:
            raise ValueError("the chat template does not end an assistant's message with the end-of-sequence token")
        end = len(prefix) - prefix[::-1].index(self.eos_id)
        if whole[:end] != prefix[:end]:
            raise ValueError(
                "the chat template rewrites earlier messages when later ones are added, so a growing conversation "
                "cannot keep its token ids; use a prefix-preserving template"
            )
        ids = whole[end:] if closed else whole[end - 1 :]
        if len(ids) <= 256 and len(self._suffixes) < 1024:  # short tool results repeat; rendering costs 0.2 ms
            self._suffixes[key] = ids
        return ids

    def encode(self, text: str) -> tuple[int, ...]:
        """The ids of plain text, control tokens in it taken as ordinary characters."""
        return tuple(self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ``ids`` without control tokens; bytes that are no UTF-8 become U+FFFD."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def text(self, ids: Sequence[int]) -> str:
        """The text of ``ids`` with control tokens, for people."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def chat(self, messages: Sequence[Message]) -> list[dict[str, object]]:
        """``messages`` in the form that chat templates and TRL data sets use, control tokens defused."""
        return [self._plain(message) for message in messages]

    def _ids(self, messages: Sequence[Message], tools: Sequence[ToolSchema], *, invite: bool) -> tuple[int, ...]:
        schemas: list[dict[str, object]] = [
            {
                "type": "function",
                "function": {"name": tool.name, "description": tool.description, "parameters": tool.parameters},
            }
            for tool in tools
        ]
        template = self.tokenizer.chat_template or ""
        if schemas and "tools" not in template:
            raise ValueError(
                f"this policy's chat template has no place for tool schemas ({', '.join(t.name for t in tools)}); "
                "use the line dialect, in which a tool call is one line of text"
            )
        text = self.tokenizer.apply_chat_template(
            self.chat(messages), tools=schemas or None, add_generation_prompt=invite, tokenize=False, return_dict=False
        )
        return tuple(self.tokenizer.encode(text, add_special_tokens=False))

    def _plain(self, message: Message) -> dict[str, object]:
        plain: dict[str, object] = {
            "role": message.role,
            "content": self._control.sub(lambda found: found[0][0] + _DEFUSED + found[0][1:], message.content),
        }
        if message.tool_calls:
            plain["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": _object(call.arguments)},
                }
                for call in message.tool_calls
            ]
        if message.tool_call_id is not None:
            plain["tool_call_id"] = message.tool_call_id
        return plain


def _object(arguments: str) -> object:
    """Templates want the arguments as an object; what is not JSON is passed on as it was written."""
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments
