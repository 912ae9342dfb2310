"""Conversations become ids once, and only ever grow."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palmette.agents.conversation import Message, ToolSchema
from palmette.trainers.tokenizer import CHAT_TEMPLATE, CONTROL_TOKENS, Codec, byte_tokenizer

CODEC = Codec(byte_tokenizer())

# Control tokens are thrown in: the text of messages is written by models, tools and strangers.
texts = st.lists(st.text(max_size=8) | st.sampled_from(CONTROL_TOKENS), max_size=4).map("".join)
heard = st.lists(
    st.builds(
        Message, role=st.sampled_from(["user", "tool"]), content=texts, tool_calls=st.just(()), tool_call_id=st.none()
    ),
    min_size=1,
    max_size=3,
)


@given(heard, texts, heard, texts, heard)
def test_a_conversation_that_grew_has_the_ids_of_one_rendered_whole(
    opening: list[Message], first: str, more: list[Message], second: str, last: list[Message]
) -> None:
    said = [Message(role="assistant", content=text) for text in (first, second)]
    grown = CODEC.render(opening)
    for reply, added in ((said[0], more), (said[1], last)):
        grown += (*CODEC.encode(_defused(reply.content)), CODEC.eos_id)
        grown += CODEC.suffix(added, closed=True)
    assert grown == CODEC.render([*opening, said[0], *more, said[1], *last])


@given(heard)
def test_a_reply_that_was_cut_off_is_closed_by_the_suffix(added: list[Message]) -> None:
    assert CODEC.suffix(added, closed=False) == (CODEC.eos_id, *CODEC.suffix(added, closed=True))


@given(st.text())
def test_any_text_survives_the_way_to_ids_and_back(text: str) -> None:
    ids = CODEC.encode(text)
    assert CODEC.decode(ids) == text
    assert len(ids) == len(text.encode())
    assert min(ids, default=9) >= len(CONTROL_TOKENS)


@given(st.sampled_from(["system", "user", "assistant", "tool"]), texts)
def test_nobody_forges_the_end_of_a_turn(role: Any, content: str) -> None:
    ids = CODEC.render([Message(role=role, content=content)])
    control = [token for token in ids if token < len(CONTROL_TOKENS)]
    assert len(control) == 3  # opened, closed, and the assistant invited


def test_bytes_that_are_no_text_are_decoded_all_the_same() -> None:
    cut = CODEC.encode("ü")[:1]
    assert CODEC.decode(cut) == "\ufffd"


def test_a_saved_tokenizer_comes_back_the_same(tmp_path: Path) -> None:
    CODEC.tokenizer.save_pretrained(str(tmp_path))
    again = Codec.load(tmp_path)
    conversation = [Message(role="system", content="ä"), Message(role="user", content="find 3")]
    assert again.render(conversation) == CODEC.render(conversation)
    assert (again.eos_id, again.pad_id) == (CODEC.eos_id, CODEC.pad_id)


def test_the_loss_mask_covers_what_the_assistant_says_and_its_stopping() -> None:
    conversation = [
        Message(role="user", content="find 3"),
        Message(role="assistant", content="read 3"),
        Message(role="tool", content="goto 7"),
        Message(role="assistant", content="done 1"),
    ]
    rendered = cast(Any, CODEC.tokenizer).apply_chat_template(
        CODEC.chat(conversation), return_dict=True, return_assistant_tokens_mask=True
    )
    learned = [token for token, mask in zip(rendered["input_ids"], rendered["assistant_masks"], strict=True) if mask]
    assert CODEC.text(learned) == "read 3<|eos|>done 1<|eos|>"


def test_a_template_without_tools_refuses_schemas_and_says_what_to_do() -> None:
    schema = ToolSchema(name="read", description="", parameters={})
    with pytest.raises(ValueError, match=r"\(read\).*line dialect"):
        CODEC.render([Message(role="user", content="x")], [schema])


def test_a_template_that_rewrites_the_past_is_refused() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "{{ messages | length }}" + CHAT_TEMPLATE
    with pytest.raises(ValueError, match="prefix-preserving"):
        Codec(tokenizer)


def test_a_template_that_does_not_end_turns_is_refused() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = CHAT_TEMPLATE.replace("<|eos|>", "\n")
    with pytest.raises(ValueError, match="end-of-sequence"):
        Codec(tokenizer)


def test_a_directory_without_a_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=str(tmp_path)):
        Codec.load(tmp_path)


def _defused(text: str) -> str:
    return cast(str, CODEC.chat([Message(role="user", content=text)])[0]["content"])
