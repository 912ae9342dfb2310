"""An E2B of one's own: a server that speaks E2B's control plane and envd protocols to the true SDK.

For tests on one host. A sandbox is a directory, a process-id namespace and a mount namespace in which that directory
is ``/home/user`` and ``/tmp``; its commands are real processes of an ordinary user. Written from the SDK (2.63) and
from the sources of envd (0.6): killing reaches the leader only, a client that goes away does not stop its command,
the end event waits for the pipes, a death by signal is exit code -1, missed output is not sent again, and a sandbox
dies when nobody renews its timeout. What it does not do: memory images (a fork is a copy of the files), networks
(sandboxes share the host's) and quotas of processor and memory.

It is no sandbox for code that one does not trust.

    with StandIn.running() as stand_in:
        sandbox = await AsyncSandbox.create(**stand_in.connection)
"""

from support.e2b_stand_in.faults import Fault
from support.e2b_stand_in.process import Connection, StandIn

__all__ = ["Connection", "Fault", "StandIn"]
