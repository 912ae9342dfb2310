%% Runs schedules on OTP's own `supervisor` and prints the trace of each.
%%
%% One schedule per line of standard input, an Erlang term; one line of output for each, in any order:
%% Id <tab> ok | late <tab> event <tab> event ... Many schedules run at once, so that the few real waits overlap.
%%
%% Nothing here sleeps to let things happen. A child asks its tracer for leave inside its start, the tracer monitors
%% it, and a schedule goes on when two rounds of calls to all living supervisors have brought no event. The emulator
%% must run with one scheduler (+S 1): then the signals of an exit reach the tracer before whoever reacts to it.

-module(otp_reference).
-behaviour(supervisor).

-export([main/0]).
-export([init/1, start_worker/3, start_supervisor/2, worker/4]).

-define(AT_ONCE, 64).
-define(SHORT, 10).     % ms; only for children that never obey
-define(LONG, 60000).   % ms; only for children that do

main() ->
    ok = io:setopts(standard_io, [binary, {encoding, latin1}]),
    feed(more, 0),
    halt().

feed(eof, 0) -> ok;
feed(more, Busy) when Busy < ?AT_ONCE ->
    case file:read_line(standard_io) of
        {ok, Line} ->
            {ok, Tokens, _} = erl_scan:string(binary_to_list(Line)),
            {ok, Schedule} = erl_parse:parse_term(Tokens),
            spawn_monitor(fun() -> print(element(1, Schedule), schedule(Schedule)) end),
            feed(more, Busy + 1);
        eof -> feed(eof, Busy)
    end;
feed(More, Busy) ->
    receive
        {'DOWN', _, process, _, normal} -> feed(More, Busy - 1);
        {'DOWN', _, process, _, Reason} ->
            io:put_chars([flat("error\t~0p", [Reason]), $\n]),
            feed(More, Busy - 1)
    end.

print(Id, {Status, Events}) ->
    io:put_chars([lists:join($\t, [integer_to_list(Id), Status | Events]), $\n]).

flat(Format, Args) -> lists:flatten(io_lib:format(Format, Args)).

%% --- one schedule ---------------------------------------------------------------------------------------------------

schedule({_Id, Period, Refusals, Root, Ops}) ->
    process_flag(trap_exit, true),
    Tracer = spawn_link(fun() -> tracer(#{events => [], size => 0, count => #{}, pids => #{}, names => #{},
                                          monitors => #{}, supervisors => #{},
                                          refusals => maps:from_list(Refusals),
                                          gate => none}) end),
    put(tracer, Tracer),
    put(begun, now_ms()),
    put(period, Period * 1000),
    put(status, "ok"),
    case supervisor:start_link(?MODULE, {Tracer, Root}) of
        {ok, Pid} ->
            record("=> ok"),
            settle(Tracer),
            run(Pid, Ops, 0),
            in_time(),
            {get(status), call(Tracer, stop)};
        {error, _} ->
            record("=> refused"),
            {get(status), call(Tracer, stop)}
    end.

run(Root, [], _) ->
    case is_process_alive(Root) of
        true ->
            record("end"),
            end_of(Root, fun() -> exit(Root, shutdown) end);
        false -> ok
    end;
run(Root, [Op | Ops], N) ->
    case is_process_alive(Root) of
        true ->
            record(flat("op ~b", [N])),
            perform(Op),
            settle(get(tracer)),
            run(Root, Ops, N + 1);
        false -> ok
    end.

%% The window of the restart intensity is real time, in whole seconds: a stretch that took too long proves nothing.
in_time() ->
    case now_ms() - get(begun) < get(period) - 1000 of
        true -> ok;
        false -> put(status, "late")
    end.

now_ms() -> erlang:monotonic_time(millisecond).

perform(wait) ->
    in_time(),
    timer:sleep(get(period) + 1050),
    put(begun, now_ms());
perform({refuse, Name, Refusal}) ->
    call(get(tracer), {refuse, Name, Refusal});
perform({exit, Name, Reason}) ->
    with(Name, fun(Pid) -> end_child(Name, Pid, Reason) end);
perform({together, Sup, Names, Reason}) ->
    with(Sup, fun(Pid) ->
        ok = sys:suspend(Pid, infinity),
        [with(Name, fun(Child) -> end_child(Name, Child, Reason) end) || Name <- Names],
        ok = sys:resume(Pid, infinity)
    end);
perform({during, Name, Reason, How, Also}) ->
    with(Name, fun(Pid) ->
        Self = self(),
        Tracer = get(tracer),
        call(Tracer, {gate, {Name, How}, Self}),
        end_child(Name, Pid, Reason),
        spawn_link(fun() -> settle(Tracer), Self ! settled end),
        receive
            settled ->
                call(Tracer, {gate, none, Self}),
                record("=> no restart");
            {gated, Release} ->
                during(Also, Release, fun() -> receive settled -> settle(Tracer) end end)
        end
    end);
perform(Order) ->
    with(element(2, Order), fun(Pid) ->
        result(Order, try gen_server:call(Pid, message(Order), infinity) catch exit:_ -> gone end)
    end).

during({exit, Name, Reason}, Release, Settle) ->
    with(Name, fun(Pid) -> end_child(Name, Pid, Reason) end),
    Release(),
    Settle();
during(Order, Release, Settle) ->
    Request = gen_server:send_request(call(get(tracer), {pid, element(2, Order)}), message(Order)),
    Release(),
    Answer = gen_server:receive_response(Request, infinity),
    Settle(),
    result(Order, case Answer of {reply, Reply} -> Reply; {error, _} -> gone end).

with(Name, Fun) ->
    case call(get(tracer), {pid, Name}) of
        undefined -> record(flat("~s absent", [Name]));
        Pid -> Fun(Pid)
    end.

end_child(_, Pid, kill) -> end_of(Pid, fun() -> exit(Pid, kill) end);
end_child(Name, Pid, Reason) ->
    case call(get(tracer), {is_supervisor, Name}) of
        true -> end_of(Pid, fun() -> catch proc_lib:stop(Pid, Reason, infinity) end);
        false -> end_of(Pid, fun() -> Pid ! {die, Reason} end)
    end.

end_of(Pid, Fun) ->
    Monitor = monitor(process, Pid),
    Fun(),
    receive {'DOWN', Monitor, process, Pid, _} -> ok end.

%% --- administration -------------------------------------------------------------------------------------------------

%% The messages of supervisor's own functions: sent by hand, since `during` must not wait for the answer.
message({start_child, _, Spec}) -> {start_child, child(get(tracer), Spec)};
message({start_dynamic, _, Name}) -> {start_child, [Name]};
message({terminate_child, _, Name}) -> {terminate_child, Name};
message({terminate_dynamic, _, Name}) -> {terminate_child, last_pid(Name)};
message({restart_child, _, Name}) -> {restart_child, Name};
message({delete_child, _, Name}) -> {delete_child, Name};
message({which_children, _}) -> which_children;
message({which_dynamic, _}) -> which_children;
message({count_children, _}) -> count_children;
message({count_dynamic, _}) -> count_children.

last_pid(Name) ->
    case call(get(tracer), {last_pid, Name}) of
        undefined -> {Pid, Monitor} = spawn_monitor(fun() -> ok end), receive {'DOWN', Monitor, _, _, _} -> Pid end;
        Pid -> Pid
    end.

result(Order, Answer) -> record("=> " ++ answer(element(1, Order), Answer)).

answer(_, gone) -> "gone";
answer(which_children, Children) ->
    string:join([flat("~s:~s", [Id, state(Pid)]) || {Id, Pid, _, _} <- lists:reverse(Children)], " ");
answer(which_dynamic, Children) ->
    string:join(lists:sort([case Pid of
                                restarting -> "?:restarting";
                                _ -> flat("~s:up", [call(get(tracer), {name, Pid})])
                            end || {undefined, Pid, _, _} <- Children]), " ");
answer(count_children, Counts) ->
    string:join([integer_to_list(proplists:get_value(Key, Counts)) || Key <- [specs, active, supervisors, workers]], " ");
answer(count_dynamic, Counts) ->
    string:join([integer_to_list(proplists:get_value(Key, Counts)) || Key <- [active, supervisors, workers]], " ");
answer(_, ok) -> "ok";
answer(_, {ok, Pid}) when is_pid(Pid) -> "ok";
answer(_, {ok, undefined}) -> "declined";
answer(_, {error, {already_started, _}}) -> "exists";
answer(_, {error, already_present}) -> "exists";
answer(_, {error, running}) -> "exists";
answer(_, {error, restarting}) -> "exists";
answer(_, {error, not_found}) -> "not found";
answer(Kind, {error, _}) when Kind =:= start_child; Kind =:= start_dynamic; Kind =:= restart_child -> "refused".

state(Pid) when is_pid(Pid) -> "up";
state(undefined) -> "down";
state(restarting) -> "restarting".

%% --- the tree -------------------------------------------------------------------------------------------------------

init({Tracer, {supervisor, Name, Strategy, Intensity, Period, Auto, _, _, _, Children}}) ->
    ok = call(Tracer, {starting, Name, supervisor}),
    {ok, {#{strategy => Strategy, intensity => Intensity, period => Period, auto_shutdown => Auto},
          [child(Tracer, Child) || Child <- Children]}};
init({Tracer, {dynamic, Name, Intensity, Period, _, _, _, {worker, _, Restart, Shutdown, _, OnStop}}}) ->
    ok = call(Tracer, {starting, Name, supervisor}),
    {ok, {#{strategy => simple_one_for_one, intensity => Intensity, period => Period},
          [#{id => template, start => {?MODULE, start_worker, [Tracer, OnStop]}, restart => Restart,
             shutdown => shutdown(Shutdown)}]}}.

child(Tracer, {worker, Name, Restart, Shutdown, Significant, OnStop}) ->
    #{id => Name, start => {?MODULE, start_worker, [Tracer, OnStop, Name]}, restart => Restart,
      shutdown => shutdown(Shutdown), significant => Significant};
child(Tracer, {supervisor, Name, _, _, _, _, Restart, Shutdown, Significant, _} = Spec) ->
    #{id => Name, start => {?MODULE, start_supervisor, [Tracer, Spec]}, restart => Restart, type => supervisor,
      shutdown => shutdown(Shutdown), significant => Significant};
child(Tracer, {dynamic, Name, _, _, Restart, Shutdown, Significant, _} = Spec) ->
    #{id => Name, start => {?MODULE, start_supervisor, [Tracer, Spec]}, restart => Restart, type => supervisor,
      shutdown => shutdown(Shutdown), significant => Significant}.

shutdown(brutal) -> brutal_kill;
shutdown(short) -> ?SHORT;
shutdown(long) -> ?LONG;
shutdown(infinity) -> infinity.

start_supervisor(Tracer, Spec) -> supervisor:start_link(?MODULE, {Tracer, Spec}).

start_worker(Tracer, OnStop, Name) -> proc_lib:start_link(?MODULE, worker, [self(), Tracer, OnStop, Name]).

worker(Parent, Tracer, OnStop, Name) ->
    process_flag(trap_exit, OnStop =/= obey),
    case call(Tracer, {starting, Name, worker}) of
        ok ->
            proc_lib:init_ack(Parent, {ok, self()}),
            work(Parent, OnStop);
        fail ->
            proc_lib:init_ack(Parent, {error, told_to}),
            exit(told_to);
        decline ->
            proc_lib:init_ack(Parent, ignore)
    end.

work(Parent, OnStop) ->
    receive
        {die, Reason} -> exit(Reason);
        {'EXIT', Parent, shutdown} when OnStop =:= stubborn -> work(Parent, OnStop);
        {'EXIT', Parent, shutdown} when OnStop =:= crash -> exit(while_stopping);
        {'EXIT', Parent, Reason} -> exit(Reason)
    end.

%% --- the tracer -----------------------------------------------------------------------------------------------------

call(Tracer, Message) ->
    Monitor = monitor(process, Tracer),
    Tracer ! {self(), Monitor, Message},
    receive
        {Monitor, Answer} -> demonitor(Monitor, [flush]), Answer;
        {'DOWN', Monitor, process, _, Reason} -> exit({tracer, Reason})
    end.

record(Event) -> call(get(tracer), {record, Event}).

%% Two quiet rounds: in the first a supervisor may still finish what it was at, and leave itself a message to go on.
settle(Tracer) -> settle(Tracer, call(Tracer, size), 2).

settle(_, _, 0) -> ok;
settle(Tracer, Size, Quiet) ->
    [catch supervisor:count_children(Pid) || Pid <- call(Tracer, supervisors)],
    case call(Tracer, size) of
        Size -> settle(Tracer, Size, Quiet - 1);
        More -> settle(Tracer, More, 2)
    end.

tracer(T) ->
    receive
        {From, Tag, Message} -> asked(Message, From, fun(Answer) -> From ! {Tag, Answer} end, T);
        {'DOWN', Monitor, process, Pid, Reason} ->
            #{monitors := #{Monitor := {Name, N}} = Monitors, pids := Pids, supervisors := Supervisors} = T,
            T1 = T#{monitors := maps:remove(Monitor, Monitors), supervisors := maps:remove(Pid, Supervisors),
                    pids := case Pids of #{Name := Pid} -> maps:remove(Name, Pids); _ -> Pids end},
            tracer(case Reason of
                       % It never was up; its children's fates tell the story.
                       {shutdown, {failed_to_start_child, _, _}} -> T1;
                       _ -> event(flat("stop ~s#~b ~s", [Name, N, class(Reason)]), T1)
                   end)
    end.

class(normal) -> normal;
class(shutdown) -> shutdown;
class({shutdown, _}) -> shutdown;
class(killed) -> killed;
class(_) -> crash.

event(Event, #{events := Events, size := Size} = T) -> T#{events := [Event | Events], size := Size + 1}.

asked(stop, _, Reply, #{events := Events}) -> Reply(lists:reverse(Events));
asked({record, Event}, _, Reply, T) -> Reply(ok), tracer(event(Event, T));
asked(size, _, Reply, #{size := Size} = T) -> Reply(Size), tracer(T);
asked(supervisors, _, Reply, #{supervisors := Supervisors} = T) -> Reply(maps:keys(Supervisors)), tracer(T);
asked({is_supervisor, Name}, _, Reply, #{pids := Pids, supervisors := Supervisors} = T) ->
    Reply(is_map_key(maps:get(Name, Pids), Supervisors)), tracer(T);
asked({pid, Name}, _, Reply, #{pids := Pids} = T) -> Reply(maps:get(Name, Pids, undefined)), tracer(T);
asked({last_pid, Name}, _, Reply, #{names := Names} = T) ->
    Reply(case [Pid || {Pid, Other} <- maps:to_list(Names), Other =:= Name] of
              [] -> undefined;
              Pids -> lists:max(Pids)
          end),
    tracer(T);
asked({name, Pid}, _, Reply, #{names := Names} = T) -> Reply(maps:get(Pid, Names)), tracer(T);
asked({refuse, Name, Refusal}, _, Reply, #{refusals := Refusals} = T) ->
    Reply(ok), tracer(T#{refusals := Refusals#{Name => Refusal}});
asked({gate, none, _}, _, Reply, T) -> Reply(ok), tracer(T#{gate := none});
asked({gate, {Name, How}, Driver}, _, Reply, T) -> Reply(ok), tracer(T#{gate := {Name, How, Driver}});
asked({starting, Name, Kind}, Pid, Reply, #{count := Count, refusals := Refusals, gate := Gate} = T) ->
    N = maps:get(Name, Count, 0) + 1,
    T1 = T#{count := Count#{Name => N}},
    case {Gate, maps:get(Name, Refusals, {0, none})} of
        {{Name, How, Driver}, _} ->
            Driver ! {gated, fun() -> Reply(How) end},
            tracer(event(flat("~s ~s#~b", [How, Name, N]), T1#{gate := none}));
        {_, {Left, How}} when Left > 0 ->
            Reply(How),
            tracer(event(flat("~s ~s#~b", [How, Name, N]), T1#{refusals := Refusals#{Name => {Left - 1, How}}}));
        _ ->
            #{pids := Pids, names := Names, monitors := Monitors, supervisors := Supervisors} = T1,
            Monitor = monitor(process, Pid),
            Reply(ok),
            tracer(event(flat("start ~s#~b", [Name, N]),
                         T1#{pids := Pids#{Name => Pid}, names := Names#{Pid => Name},
                             monitors := Monitors#{Monitor => {Name, N}},
                             supervisors := case Kind of
                                                supervisor -> Supervisors#{Pid => Name};
                                                worker -> Supervisors
                                            end}))
    end.
