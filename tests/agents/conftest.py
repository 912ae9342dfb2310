"""The endpoint that the tests of this folder talk to."""

from support.openai_server import openai_server as openai_server
