#!/usr/bin/env escript
%% Erlang itself, as a companion program: see companions.py. A line asks ("call 1000"), a line answers (seconds each).
-mode(compile).
-export([main/1, start_link/0, init/1, handle_call/3, handle_cast/2]).

main(_) ->
    logger:set_primary_config(level, none),
    serve().

serve() ->
    case io:get_line("") of
        eof -> ok;
        Line ->
            [What, Units] = string:lexemes(string:trim(Line), " "),
            N = list_to_integer(Units),
            io:format("~.12f~n", [measure(What, N)]),
            serve()
    end.

start_link() -> gen_server:start_link(?MODULE, worker, []).

init(worker) -> {ok, 0};
init(dynamic) ->
    {ok, {#{strategy => simple_one_for_one, intensity => 1000000, period => 1},
          [#{id => worker, start => {?MODULE, start_link, []}, restart => permanent}]}}.

handle_call(crash, _, State) -> {stop, crashed, ok, State};
handle_call(Message, _, State) -> {reply, Message, State}.
handle_cast(_, State) -> {noreply, State + 1}.

measure("call", N) ->
    {ok, Pid} = gen_server:start(?MODULE, worker, []),
    Cost = each(N, fun() -> repeat(N, fun() -> gen_server:call(Pid, 1) end) end),
    gen_server:stop(Pid),
    Cost;
measure("cast", N) ->
    {ok, Pid} = gen_server:start(?MODULE, worker, []),
    Cost = each(N, fun() ->
        repeat(N, fun() -> gen_server:cast(Pid, 1) end),
        gen_server:call(Pid, 1, 60000)
    end),
    gen_server:stop(Pid),
    Cost;
measure("memory", N) ->
    Before = erlang:memory(processes),
    Pids = [element(2, {ok, _} = gen_server:start(?MODULE, worker, [])) || _ <- lists:seq(1, N)],
    Cost = (erlang:memory(processes) - Before) / N,
    [gen_server:stop(Pid) || Pid <- Pids],
    Cost;
measure("spawn", N) ->
    each(N, fun() ->
        {ok, Sup} = supervisor:start_link(?MODULE, dynamic),
        repeat(N, fun() -> {ok, _} = supervisor:start_child(Sup, []) end),
        stop(Sup)
    end);
measure("restart", N) ->
    {ok, Sup} = supervisor:start_link(?MODULE, dynamic),
    {ok, _} = supervisor:start_child(Sup, []),
    Cost = each(N, fun() -> repeat(N, fun() ->
        [{_, Pid, _, _}] = supervisor:which_children(Sup),
        gen_server:call(Pid, crash),
        reborn(Sup, Pid)
    end) end),
    stop(Sup),
    Cost.

reborn(Sup, Old) ->
    case supervisor:which_children(Sup) of
        [{_, Pid, _, _}] when is_pid(Pid), Pid =/= Old -> ok;
        _ -> reborn(Sup, Old)
    end.

stop(Sup) ->
    unlink(Sup),
    Monitor = monitor(process, Sup),
    exit(Sup, shutdown),
    receive {'DOWN', Monitor, _, _, _} -> ok end.

repeat(0, _) -> ok;
repeat(N, Fun) -> Fun(), repeat(N - 1, Fun).

each(N, Fun) ->
    Begun = erlang:monotonic_time(nanosecond),
    Fun(),
    (erlang:monotonic_time(nanosecond) - Begun) / 1.0e9 / N.
