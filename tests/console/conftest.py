"""The command line that the tests of this folder type into."""

from support.command_line import command_line as command_line
from support.openai_server import openai_server as openai_server
