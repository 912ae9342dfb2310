"""What the kernel and the supervisors promise, row by row (DESIGN §4 and §5), and which tests show it, in both worlds.

A row is shown by tests of ``tests/actors`` and ``tests/supervisors``; at least one of them runs in real time, and at
least one in the simulation (``support.worlds``). To add a row, name the tests, without their ``test_``.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]

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
        "a_stop_that_takes_too_long_becomes_a_kill",
    ),
    "a stop has a reason, which everybody sees": (
        "a_monitor_is_told_of_every_kind_of_end",
        "the_reason_of_a_stop_reaches_the_hook_the_monitors_and_the_record",
    ),
    "a kill skips the hook and is not lost": (
        "kill_interrupts_the_handler_and_skips_the_hook",
        "a_kill_before_the_first_step_of_a_task_is_not_lost",
        "a_kill_during_the_hook_interrupts_it",
    ),
    "a kill is honest: what still runs is a zombie, its end untold, its name not given away": (
        "an_actor_that_swallows_its_cancellation_is_a_zombie_until_its_code_ends",
        "a_zombies_name_is_not_given_away_while_its_code_runs",
        "a_task_that_will_not_be_cancelled_makes_its_actor_a_zombie_however_it_ended",
        "a_start_that_will_not_be_cancelled_fails_all_the_same_and_is_a_zombie",
        "the_system_ends_in_bounded_time_beside_a_zombie",
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
    # the registry
    "names are unique": (
        "a_name_that_somebody_living_has_refuses_a_start_and_hurts_nobody",
        "an_actor_can_be_given_further_names",
        "a_name_that_was_taken_while_its_owner_was_down_keeps_the_owner_down",
    ),
    "a dead owner's name can be used at once": (
        "a_name_whose_holder_is_dead_can_be_taken_over",
        "a_name_is_free_in_the_instant_in_which_its_owners_death_is_told",
    ),
    "a name outlives restarts": (
        "a_name_outlives_restarts_and_is_free_when_its_address_is_given_up",
        "waiting_for_a_name_sees_the_next_incarnation_and_not_a_dying_one",
        "the_registry_comes_back_with_all_it_knew",
    ),
    "groups are left by dying": ("members_of_a_group_leave_it_by_dying", "the_dead_join_nothing"),
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
}

ROWS = {**KERNEL, **SUPERVISORS}


@pytest.fixture(scope="module")
def collected() -> dict[str, set[str]]:
    """The worlds in which each test is run, as pytest collects them."""
    command = [sys.executable, "-m", "pytest", "-q", "--collect-only", "-p", "no:cacheprovider", "-n", "0"]
    listed = subprocess.run(
        [*command, str(TESTS / "actors"), str(TESTS / "supervisors")],
        cwd=TESTS.parent, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert listed.returncode == 0, listed.stdout[-2000:] + listed.stderr[-2000:]
    found: dict[str, set[str]] = defaultdict(set)
    for name, parameters in re.findall(r"::test_(\w+)(?:\[(.*)\])?$", listed.stdout, flags=re.MULTILINE):
        found[name] |= {re.sub(r"\d+$", "", word) for word in parameters.split("-")} & {"real", "seed"}
    return found


@pytest.mark.parametrize("row", ROWS)
def test_a_row_is_shown_in_real_time_and_in_the_simulation(row: str, collected: dict[str, set[str]]) -> None:
    missing = [name for name in ROWS[row] if name not in collected]
    assert not missing, f"no test of this name: {missing}"
    worlds = set[str]().union(*(collected[name] for name in ROWS[row]))
    assert worlds == {"real", "seed"}, f"{row}: shown in {sorted(worlds) or 'no world'} only"


def test_no_row_is_given_twice() -> None:
    assert len(ROWS) == len(KERNEL) + len(SUPERVISORS)
