"""The runner: the one program of ours that runs inside a machine. See :mod:`palmette.machines.runner.main`.

Everything here is Python 3.6 with its standard library and nothing else, for it runs inside foreign images; so are the
modules that it shares with the controller (:data:`palmette.machines.bootstrap.MODULES`).
"""
