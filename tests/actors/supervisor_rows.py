"""What the supervisors promise (DESIGN §5), and which tests show it: without their ``test_``."""

from __future__ import annotations

SUPERVISORS: dict[str, tuple[str, ...]] = {
    "start from the left, stop from the right": (
        "children_start_from_left_to_right_and_stop_from_right_to_left",
        "a_failing_first_start_stops_those_already_up_in_reverse_and_is_not_tried_again",
    ),
    "who is restarted, by strategy, restart type and reason": (
        "who_is_restarted_when_the_middle_child_ends",
        "a_supervisor_does_what_the_model_says",
    ),
    "one_for_all starts over": (
        "a_group_stops_in_reverse_and_starts_forward",
        "one_for_all_starts_over_when_a_member_fails_to_come_back",
    ),
    "rest_for_one resumes at the member that failed": ("rest_for_one_resumes_at_the_member_that_failed",),
    "only a death that leads to a restart triggers its group": (
        "who_is_restarted_when_the_middle_child_ends",
        "a_member_that_a_rule_lets_go_does_not_keep_the_rest_of_its_group_down",
    ),
    "deaths during a restart": (
        "a_child_that_dies_while_its_supervisor_restarts_another_is_not_lost",
        "a_member_that_dies_again_before_its_group_is_up_is_restarted_once_more",
        "two_deaths_at_once_restart_a_group_once",
    ),
    "the budget: sliding, shared, inclusive, failed attempts count, manual restarts do not": (
        "one_restart_more_than_allowed_ends_the_supervisor",
        "with_a_budget_of_none_the_first_restart_is_one_too_many",
        "a_restart_exactly_the_window_ago_still_counts",
        "restarts_that_lie_further_back_than_the_window_are_forgotten",
        "the_budget_is_shared_by_all_children",
        "failed_attempts_to_start_count",
        "manual_restarts_do_not_count",
    ),
    "a spent budget and an auto-shutdown are different reasons": (
        "a_spent_budget_names_the_last_straw",
        "a_supervisor_is_a_child_like_any_other",
        "any_significant_end_ends_the_supervisor_and_stops_the_others_in_reverse",
    ),
    "shutdown: brutal, seconds, infinity": (
        "brutal_kills_and_infinity_waits",
        "a_child_that_will_not_stop_in_time_is_killed_and_the_restart_goes_on",
    ),
    "start_child": (
        "a_child_that_is_added_takes_the_last_place_in_the_order",
        "a_child_that_does_not_start_is_not_kept_and_hurts_nobody",
        "a_name_can_be_used_once",
        "children_that_were_added_later_do_not_come_back_with_their_supervisor",
    ),
    "terminate_child": (
        "terminating_keeps_the_spec_and_is_idempotent",
        "terminating_a_temporary_child_forgets_it",
        "a_child_that_died_at_the_same_time_is_terminated_and_not_restarted",
        "an_unknown_child_is_refused_with_the_known_ones",
    ),
    "what each administration call does in each state of a child": ("what_a_call_does_to_a_child_in_a_state",),
    "restart_child": (
        "only_a_child_that_is_down_can_be_restarted_or_forgotten",
        "a_restart_by_hand_that_fails_keeps_the_spec",
    ),
    "delete_child": ("only_a_child_that_is_down_can_be_restarted_or_forgotten",),
    "which_children and count_children": ("children_are_listed_in_start_order_and_counted",),
    "administration ends a restart loop": (
        "a_restart_loop_lets_requests_through_and_ends_when_they_say_so",
        "a_child_that_waits_counts_as_restarting_and_can_be_terminated",
        "a_group_goes_on_without_the_member_it_waited_for_when_that_one_is_terminated",
        "a_supervisor_that_is_asked_to_end_during_a_restart_does_not_finish_it",
    ),
    "a dynamic supervisor stops its children in parallel": ("children_stop_at_the_same_time_each_by_its_own_protocol",),
    "max_children": ("max_children_is_admission_control", "a_child_that_does_not_start_takes_no_place"),
    "a dynamic supervisor forgets who is done": (
        "children_that_are_done_are_forgotten_and_their_names_are_free",
        "terminating_forgets_and_an_absent_child_is_fine",
    ),
    "significant children, any": (
        "any_significant_end_ends_the_supervisor_and_stops_the_others_in_reverse",
        "a_significant_crash_that_leads_to_a_restart_ends_nothing",
        "a_significant_bystander_of_a_group_restart_ends_nothing",
    ),
    "significant children, all": (
        "all_significant_waits_for_the_last_one",
        "terminating_a_significant_child_ends_nothing_but_counts_as_ended",
        "a_significant_child_that_waits_for_its_restart_counts_as_active",
        "completion_climbs_up_through_significant_supervisors",
    ),
    "backoff": (
        "each_restart_in_a_row_waits_longer_up_to_the_maximum",
        "a_child_that_lived_long_enough_begins_again_at_the_minimum",
        "a_servers_retry_after_is_a_floor",
        "a_system_stops_at_once_beside_a_child_that_waits",
    ),
    "rules by error class": (
        "stop_lets_the_child_stay_ended",
        "escalate_gives_up_at_once_and_says_so",
        "restarts_of_the_backoff_kind_do_not_spend_the_budget",
        "a_child_whose_first_wait_is_longer_than_its_patience_gets_no_second_one",
    ),
    "completed stays completed": (
        "completed_and_stopped_members_stay_so_when_their_group_restarts",
        "a_completed_member_comes_back_with_its_group_if_its_spec_says_resurrect",
        "a_member_that_finished_before_its_group_could_be_stopped_has_finished",
    ),
    "a child that declines: its supervisor goes on without it": (
        "a_decline_at_first_is_no_failure_and_only_a_temporary_child_is_forgotten",
        "start_child_says_that_it_declined_and_keeps_the_spec_of_all_but_a_temporary_child",
        "a_child_that_declined_is_started_when_asked_to",
        "a_dynamic_child_that_declines_is_not_kept_at_first_or_later",
    ),
    "a restart that is declined has succeeded": (
        "a_restart_that_is_declined_has_succeeded_and_costs_what_a_restart_costs",
        "a_decline_after_a_failed_start_ends_the_attempts",
        "a_decline_after_a_backoff_ends_the_wait",
        "a_group_restart_goes_on_without_the_one_that_declines",
        "a_child_that_declined_is_asked_again_when_its_group_restarts",
        "a_significant_child_that_declines_ends_nothing_and_is_not_waited_for",
    ),
    # tasks
    "async_nolink: a task's end is data for its owner": (
        "a_task_gives_its_result_and_is_gone",
        "a_crash_is_data_for_the_owner_and_hurts_nobody",
        "a_task_that_says_exit_ends_itself_and_not_the_program",
        "a_killed_supervisor_takes_its_tasks_along_and_their_owners_learn_of_it",
    ),
    "a task ends with its owner": (
        "the_tasks_of_an_actor_end_with_it",
        "an_owner_outside_of_actors_is_the_asyncio_task_that_asked",
        "a_task_whose_caller_has_gone_before_it_was_started_is_not_started",
    ),
    "start_child: a task without an owner, restarted if told to": (
        "fire_and_forget_has_no_owner_and_restarts_if_told_to",
    ),
    "yield waits, and the task runs on": (
        "a_task_that_is_not_done_in_time_runs_on",
        "several_tasks_have_one_timeout_together",
    ),
    "shutdown lets a task clean up in its time, and gives what it had": (
        "shutdown_lets_a_task_clean_up_in_its_time",
        "shutdown_kills_what_takes_too_long",
        "shutdown_returns_what_arrived_before_or_meanwhile",
        "a_task_that_swallows_its_cancellation_is_a_zombie_and_holds_nobody_up",
        "the_supervisors_stop_gives_all_tasks_their_time_at_once",
    ),
    "async_stream: each item's result once, in order": (
        "results_come_in_the_order_of_the_items_or_as_they_are_done",
        "a_crash_is_one_result_among_the_others_and_names_its_item",
        "a_stream_keeps_its_promises",
        "a_stream_is_whole_and_in_order_under_any_schedule_and_any_crashes",
    ),
    "async_stream is bounded": (
        "items_are_taken_only_when_there_is_room_for_them",
        "a_slow_consumer_slows_the_stream_down",
    ),
    "async_stream: overdue tasks": (
        "an_overdue_task_ends_the_iteration_or_is_killed",
        "a_task_that_is_overdue_while_the_consumer_is_away_ends_the_iteration_at_its_return",
        "a_task_that_cannot_be_killed_does_not_hold_the_stream_up",
        "the_deadline_in_force_is_the_streams_too",
    ),
    "async_stream leaves no task behind": (
        "leaving_the_iteration_stops_the_tasks",
        "a_break_is_enough",
        "a_cancelled_consumer_stops_the_tasks_and_gives_them_their_time",
        "the_end_of_its_owner_stops_the_tasks",
        "what_the_items_raise_comes_out_and_stops_the_tasks",
    ),
    # partitions
    "a key finds its copy, always the same": ("a_key_finds_its_copy_and_keeps_it_through_a_restart",),
    "copies are numbered, administered, and share one fate with their supervisor": (
        "the_copies_are_listed_and_counted_and_their_number_stands",
        "the_restart_of_the_whole_keeps_the_addresses",
        "a_spent_budget_ends_them_all_and_they_come_back_together",
    ),
    "a partition is any child": (
        "dynamic_supervisors_share_the_work_and_their_names_do_not_collide",
        "a_partition_may_be_a_tree_of_its_own",
    ),
}
