"""What the kernel promises (DESIGN §4), and which tests show it: without their ``test_``."""

from __future__ import annotations

KERNEL: dict[str, tuple[str, ...]] = {
    # starts
    "a start is synchronous": ("each_child_is_up_before_the_next_begins_and_they_stop_in_reverse",),
    "a failing start rolls back in reverse and is not tried again": (
        "a_failing_start_rolls_back_in_reverse_and_is_not_tried_again",
        "a_system_that_is_cancelled_while_it_starts_stops_what_is_up_in_reverse",
        "the_innermost_failure_is_the_one_that_is_shown",
    ),
    "a start has a time limit": (
        "a_start_that_takes_too_long_is_killed_and_gone_when_that_is_told",
        "a_start_that_swallows_its_kill_and_returns_has_failed_all_the_same",
        "a_kill_from_outside_fails_a_start",
    ),
    "continued runs before any queued message": (
        "continued_runs_before_any_queued_message",
        "continued_runs_before_what_init_sent_to_itself",
        "the_starter_does_not_wait_for_continued",
        "a_crash_in_continued_is_a_crash_after_the_start",
    ),
    # calls
    "a reply may come later": (
        "a_reply_may_come_after_other_messages_were_served",
        "only_the_first_answer_counts",
        "work_that_answers_later_leaves_the_mailbox_open",
        "a_caller_that_gave_up_is_owed_nothing",
    ),
    "every call has a deadline, which travels": (
        "a_call_that_nothing_bounds_ends_at_the_default_deadline",
        "the_callee_and_its_callees_inherit_the_deadline",
        "of_two_nested_deadlines_the_tighter_one_holds",
        "a_request_that_waited_past_its_deadline_is_not_worked_on",
    ),
    "a late reply is dropped": ("a_late_reply_is_dropped",),
    "the death of a callee ends the call at once": (
        "a_crash_fails_the_pending_call_and_those_queued_behind_it",
        "a_call_to_the_dead_fails_at_once_and_names_the_address",
        "a_death_before_the_reply_reaches_everybody_who_waits",
        "calls_that_wait_for_room_learn_of_the_death",
    ),
    "a reference survives restarts": (
        "a_reference_survives_restarts_and_counts_incarnations",
        "a_reference_survives_the_restart_of_the_supervisor_above_it",
    ),
    "a start may be declined, which is no failure": (
        "what_was_begun_is_undone_and_a_failure_of_that_is_a_failed_start",
        "init_may_decline_too",
        "a_root_that_declines_is_a_system_that_cannot_start",
        "to_decline_after_the_start_is_a_crash",
        "a_decline_ends_no_link_of_the_one_that_declines",
    ),
    # bonds
    "links share an end, and trapped exits are messages": (
        "an_abnormal_end_crosses_a_link_in_both_directions_and_skips_the_hook",
        "a_normal_end_does_not_cross_a_link",
        "an_end_crosses_a_chain_of_links",
        "who_traps_exits_gets_a_message_for_every_reason_and_lives",
        "linking_to_the_dead_is_an_end_at_once",
        "nobody_can_take_a_supervisor_down_by_linking_to_it",
    ),
    "monitors stack, tell once, and can be undone": (
        "monitors_stack_and_each_is_told_exactly_once",
        "a_monitor_is_told_of_every_kind_of_end",
        "monitoring_a_dead_address_is_answered_at_once",
        "undoing_a_monitor_guarantees_silence_also_when_its_down_waits_already",
    ),
    "messages arrive in order, and before the Down": (
        "casts_and_sends_arrive_in_order_with_calls",
        "messages_from_one_sender_arrive_in_order_whatever_others_send",
        "messages_sent_before_a_death_arrive_before_the_news_of_it",
    ),
    "timers are tied to an incarnation": (
        "a_timer_dies_with_its_incarnation",
        "a_timer_can_be_called_off_also_when_it_has_fired",
    ),
    "tasks beside the mailbox are tied to an incarnation": (
        "a_task_never_outlives_its_actor",
        "a_task_that_raises_takes_an_idle_actor_down",
    ),
    # ends
    "stop waits, with the hook run": (
        "stop_waits_until_the_hook_has_run",
        "stop_lets_the_present_handler_finish_and_nothing_after_it",
        "a_stop_that_takes_too_long_is_the_callers_to_judge",
        "stopping_the_dead_is_fine",
        "an_actor_cannot_wait_for_its_own_end",
    ),
    "a stop has a reason, which everybody sees": (
        "stop_ends_with_any_reason_that_is_asked_for",
        "who_asks_for_a_reason_learns_that_it_was_another",
        "who_stops_an_actor_that_crashes_instead_learns_of_the_crash",
        "a_monitor_is_told_of_every_kind_of_end",
        "the_reason_of_a_stop_reaches_the_hook_the_monitors_and_the_record",
    ),
    "a kill skips the hook and is not lost": (
        "kill_interrupts_the_handler_and_skips_the_hook",
        "a_kill_before_the_first_step_of_a_task_is_not_lost",
        "a_kill_during_the_hook_interrupts_it",
        "a_termination_that_takes_too_long_becomes_a_kill",
        "terminate_says_where_a_zombie_stays_behind",
    ),
    "what ends programs elsewhere ends one actor": (
        "whatever_code_is_left_by_it_ends_its_actor_and_nobody_else",
        "a_start_that_is_left_by_it_fails_with_it",
    ),
    "code that cleans up is cancelled once": (
        "a_handler_that_cleans_up_after_a_crash_is_left_to_it",
        "a_task_that_cleans_up_is_cancelled_once_however_its_actor_ends",
        "a_hook_that_cleans_up_after_a_kill_is_not_cancelled_again_at_its_time_limit",
    ),
    "a drain finishes what was taken, and takes nothing new": (
        "what_is_queued_is_finished_and_what_comes_later_is_refused",
        "a_call_that_waits_for_room_was_taken_and_is_finished",
        "replies_that_are_owed_are_given_before_the_end",
        "messages_from_itself_and_the_kernels_get_in",
        "all_that_was_taken_before_a_drain_is_done_and_nothing_after_it",
    ),
    "a drain ends: by its deadline, by a crash, after a suspension": (
        "at_the_deadline_the_present_handler_ends_and_the_rest_is_refused",
        "a_handler_that_does_not_end_after_the_deadline_is_killed",
        "a_crash_during_the_drain_is_told",
        "a_suspended_actor_is_drained_when_it_is_resumed",
        "a_permanent_child_starts_again_after_its_drain_and_takes_messages",
    ),
    "a kill is honest: what still runs is a zombie, its end untold, its name not given away": (
        "an_actor_that_swallows_its_cancellation_is_a_zombie_until_its_code_ends",
        "a_zombies_name_is_not_given_away_while_its_code_runs",
        "a_task_that_will_not_be_cancelled_makes_its_actor_a_zombie_however_it_ended",
        "a_start_that_will_not_be_cancelled_fails_all_the_same_and_is_a_zombie",
        "the_system_ends_in_bounded_time_beside_a_zombie",
        "a_given_up_zombie_leaves_no_address_behind_when_it_ends",
    ),
    "a zombie keeps its names, belongs to no group, and its state stays as it is": (
        "a_name_that_a_zombie_holds_is_refused_to_others_until_its_code_ends",
        "a_zombies_state_is_not_replaced",
    ),
    "the children of a killed supervisor end before it is said to have ended": (
        "the_children_of_a_killed_supervisor_end_in_order_before_its_end_is_announced",
        "a_child_that_does_not_end_in_time_is_killed_with_its_killed_parent",
    ),
    # the system lane
    "suspend and resume": (
        "a_suspended_actor_takes_no_message_until_it_is_resumed",
        "a_suspended_actor_can_still_be_ended",
    ),
    "statistics of a busy actor": ("statistics_are_answered_for_a_busy_actor_and_refused_for_a_dead_one",),
    "exits are kept, in order": ("exits_are_kept_told_to_watchers_in_order_and_explained",),
    "a state is seen at any time, without secrets": (
        "a_state_shows_attributes_as_text_without_secrets",
        "an_actor_may_say_itself_what_there_is_to_see",
        "a_description_that_raises_is_told_and_hurts_nobody",
        "a_busy_and_a_suspended_actor_can_be_looked_at_and_a_dead_one_cannot",
    ),
    "a state is replaced between two handlers": (
        "an_idle_actors_state_is_replaced_at_once",
        "it_waits_for_the_present_handler_and_comes_before_the_next",
        "a_full_mailbox_and_a_suspension_do_not_keep_it_waiting",
        "a_resume_does_not_let_messages_pass_a_waiting_replacement",
    ),
    "a state is replaced as a whole, or not at all": (
        "a_function_that_fails_leaves_the_state_as_it_was_and_tells_its_caller",
        "a_replacement_whose_caller_gave_up_does_not_happen",
        "a_replacement_that_waits_learns_of_the_death",
    ),
    "who blocks the event loop is named, once; others are not": (
        "it_names_the_actor_the_endpoint_and_the_line_once_and_says_when_it_is_over",
        "it_finds_code_that_hardly_lets_go_of_the_interpreter",
        "one_step_that_stands_for_the_threshold_is_reported_once",
        "a_loop_that_turns_and_a_handler_that_changes_are_not_blocked",
        "who_kept_the_watchdog_from_looking_is_who_stands_there_when_it_comes_in",
        "a_process_that_was_asleep_blames_nobody",
    ),
    # mailboxes
    "a full mailbox: block": (
        "block_makes_a_call_wait_for_room_in_order",
        "block_refuses_a_cast_because_it_cannot_wait",
        "a_call_that_waits_for_room_gives_up_at_its_deadline",
    ),
    "a full mailbox: reject": ("reject_refuses_calls_and_casts_at_once",),
    "a full mailbox: drop_oldest": ("drop_oldest_makes_room_and_tells_the_one_who_lost",),
    "the kernel's own messages always fit": ("messages_of_the_kernel_and_plain_sends_always_fit",),
    "dead letters are counted and listed": (
        "casts_and_sends_to_the_dead_become_dead_letters",
        "unread_casts_and_messages_of_an_actor_that_crashes_become_dead_letters",
        "a_refused_cast_is_a_dead_letter_and_no_crash",
        "dead_letters_are_counted_beyond_those_that_are_kept",
    ),
    "a stash comes back in order, ahead of the mailbox": (
        "stashed_messages_come_back_in_order_and_ahead_of_the_mailbox",
        "a_message_that_cannot_be_handled_yet_again_goes_back_behind_those_before_it",
        "whatever_happens_nothing_is_lost_doubled_or_out_of_order",
    ),
    "a stashed call is a call: it has its deadline, and learns of the end": (
        "a_stashed_call_is_answered_when_it_has_come_back",
        "a_stashed_call_keeps_its_deadline_and_a_late_one_is_dropped",
        "calls_whose_callers_gave_up_make_room_in_a_full_stash",
        "what_is_stashed_fares_as_the_mailbox_does_when_the_actor_ends",
    ),
    "a full stash loses nothing silently": (
        "a_full_stash_refuses_a_call_and_makes_a_cast_a_dead_letter",
        "a_full_stash_crashes_the_actor_that_would_lose_a_plain_message",
    ),
    # the registry
    "names are unique": (
        "a_name_that_somebody_living_has_refuses_a_start_and_hurts_nobody",
        "an_actor_can_be_given_further_names",
        "a_name_that_was_taken_while_its_owner_was_down_keeps_the_owner_down",
    ),
    "a dead owner's name can be used at once": (
        "a_name_whose_holder_is_dead_can_be_taken_over",
        "the_name_of_a_dead_owner_is_free_at_once",
        "a_name_is_free_in_the_instant_in_which_its_owners_death_is_told",
    ),
    "a name outlives restarts": (
        "a_name_outlives_restarts_and_is_free_when_its_address_is_given_up",
        "waiting_for_a_name_sees_the_next_incarnation_and_not_a_dying_one",
        "the_registry_comes_back_with_all_it_knew",
    ),
    "groups are left by dying": (
        "members_of_a_group_leave_it_by_dying",
        "the_dead_join_nothing",
        "whatever_happens_a_group_is_who_joined_and_lives",
    ),
    "many may have one key, each with a value of its own": (
        "each_member_has_a_value_of_its_own_and_may_change_it",
        "one_actor_may_be_in_many_groups_and_leaves_all_by_ending",
        "the_dead_have_no_value_to_change",
        "a_group_outlives_its_registry",
    ),
    "a message to a group reaches each member once": ("a_message_that_is_dispatched_reaches_each_member_once",),
    "subscriptions": (
        "subscribers_are_told_of_arrivals_deaths_and_restarts_once_each",
        "a_subscriber_to_everything_hears_of_all_names",
        "a_subscription_ends_with_its_subscriber",
    ),
    # the system
    "a root that gives up ends the program's block": (
        "a_root_that_gives_up_cancels_the_block_and_says_why",
        "a_tree_that_has_done_its_work_ends_the_wait",
    ),
}
