//! The macros that define the tests of a backend.

/// Defines one test for each case. `$open` is a closure that receives a clock and a dedup window. It returns a store,
/// and a value that must live as long as the store. The optional `$open_two` returns two handles to one store, and a
/// value that must live as long as the handles. The optional `$damage` is a closure that receives the second value of
/// `$open` and damages a [`DamagedRow`].
#[macro_export]
macro_rules! conformance {
    ($open:expr, damage = $damage:expr) => {
        $crate::conformance! { $open }
        $crate::conformance_cases_of_damage! { $open, $damage;
            a_damaged_event_is_an_error_in_its_place
            a_damaged_delivery_is_an_error_in_its_place_and_does_not_run
            a_damaged_dead_letter_is_listed_and_left_unchanged
            damaged_marks_state_and_replays_are_errors_and_others_are_returned
        }
    };
    ($open:expr, $open_two:expr) => {
        $crate::conformance! { $open }
        $crate::conformance_cases_of_two! { $open_two;
            two_handles_share_deliveries_and_state
            two_handles_share_scopes
        }
    };
    ($open:expr) => {
        $crate::conformance_cases! { $open;
            functions_keep_their_ids
            accepted_events_and_deliveries_read_back_unchanged
            a_repeated_source_and_id_is_a_duplicate_without_deliveries
            published_events_with_their_own_id_are_deduplicated
            an_id_that_another_origin_used_is_still_free
            origins_keep_their_numbers_and_uris
            the_principal_of_an_event_is_read_back_and_not_inherited
            marks_commit_with_their_events
            deliveries_are_announced_in_accept_order
            the_sink_receives_settled_completions_with_deliveries_they_made_ready
            an_outcome_commits_with_its_published_events
            a_failure_commits_with_its_runtime_events
            the_backlog_counts_pending_deliveries_by_origin
            a_retry_is_due_at_its_time
            a_load_ends_at_its_size_and_the_next_one_continues
            a_load_of_retries_ends_at_its_size_and_leaves_out_held_ones
            a_successful_attempt_keeps_its_message
            a_recording_commits_with_its_attempt
            the_oldest_recordings_of_a_function_give_way_to_its_new_ones
            a_dead_letter_keeps_its_cause_and_can_be_redriven_or_purged
            dead_letters_are_counted_by_source_until_they_are_redriven_or_purged
            many_dead_letters_are_redriven_by_one_call
            deliveries_of_one_key_run_in_order_and_other_keys_in_parallel
            a_dead_letter_blocks_only_its_own_key_until_redriven_or_purged
            events_are_listed_by_type_source_and_position
            a_completion_of_another_attempt_or_of_a_finished_delivery_is_superseded
            released_deliveries_are_found_again
            the_events_of_a_chain_are_limited_in_number_and_size
            a_chain_is_pending_until_it_published_a_wanted_event_or_has_nothing_left_to_run
            an_event_is_found_by_source_and_id_and_is_pending_until_its_deliveries_ended
            a_chain_with_a_dead_letter_has_the_kind_of_its_last_outcome
            pending_deliveries_are_listed_and_cancelled_by_function_root_and_number
            a_cancelled_delivery_of_a_key_stays_in_order_after_a_redrive
            an_exit_is_counted_once_for_attempts_that_are_the_next_of_a_pending_delivery
            a_scope_has_one_owner_until_it_is_released
            a_replay_adds_deliveries_that_are_marked_and_counted
            a_repeated_or_late_replay_step_changes_nothing
            a_replay_keeps_key_order_and_never_blocks_live_deliveries
            a_cancelled_replay_purges_deliveries_that_did_not_start
            retention_and_replays_work_together
            dead_letters_are_listed_newest_first_with_the_end_of_their_last_attempt
            a_blocked_delivery_names_the_delivery_it_waits_for
            a_retry_that_is_not_due_runs_now_when_an_operator_asks
            a_dead_letter_is_replaced_by_an_event_in_one_commit
            pending_deliveries_move_to_another_function_in_the_order_of_their_keys
            a_scheduled_event_has_no_deliveries_until_it_is_released_once
            deliveries_of_a_released_event_count_as_not_refusable_until_they_end
            a_published_event_is_scheduled_with_the_outcome
            a_released_event_takes_the_last_place_of_its_order_key
            a_cancelled_event_has_purged_deliveries_and_blocks_no_key
            a_replay_leaves_out_scheduled_events
            state_commits_with_its_outcome
            a_read_changed_by_another_transaction_conflicts_and_commits_nothing
            a_key_list_is_valid_until_a_key_is_created_or_deleted
            a_bucket_does_not_grow_past_its_quota
            concurrent_counters_are_exact
            staged_writes_are_visible_and_stale_reads_are_not_staged
            a_renamed_function_takes_over_everything_once
            a_function_with_deliveries_of_its_own_takes_over_the_unfinished_ones_in_order
            a_function_takes_over_no_replayed_delivery_of_an_event_that_it_has
            two_names_with_state_are_a_conflict_that_changes_nothing
            marks_and_origins_that_the_new_name_has_are_kept
        }
        $crate::conformance_timed_cases! { $open;
            an_id_is_accepted_again_when_its_dedup_window_ends
            events_are_found_by_function_and_positions_by_time
            retention_removes_only_finished_events
            a_removed_event_is_deduplicated_until_its_window_ends
            a_recording_is_removed_at_its_age_and_with_its_event
            a_store_over_its_size_limit_removes_the_oldest_events_first
            ages_of_a_scheduled_event_count_from_its_release
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! conformance_cases {
    ($open:expr; $($case:ident)*) => { $(
        #[tokio::test]
        async fn $case() {
            use $crate::conformance;
            let clock = evoke_model::clock::Clock::fixed(conformance::NOW_MS);
            let (store, _kept) = ($open)(clock, $crate::DEDUP_WINDOW);
            conformance::$case(&store).await;
            assert_eq!($crate::InspectionStore::check(&store).await.unwrap().problems, Vec::<String>::new());
        }
    )* };
}

#[doc(hidden)]
#[macro_export]
macro_rules! conformance_cases_of_two {
    ($open:expr; $($case:ident)*) => { $(
        #[tokio::test]
        async fn $case() {
            use $crate::conformance;
            let clock = evoke_model::clock::Clock::fixed(conformance::NOW_MS);
            let (first, second, _kept) = ($open)(clock, $crate::DEDUP_WINDOW);
            conformance::$case(&first, &second).await;
            assert_eq!($crate::InspectionStore::check(&first).await.unwrap().problems, Vec::<String>::new());
        }
    )* };
}

#[doc(hidden)]
#[macro_export]
macro_rules! conformance_timed_cases {
    ($open:expr; $($case:ident)*) => { $(
        #[tokio::test]
        async fn $case() {
            use $crate::conformance;
            let now_ms = std::sync::Arc::new(std::sync::atomic::AtomicI64::new(conformance::NOW_MS));
            let (store, _kept) = ($open)(evoke_model::clock::Clock::manual(&now_ms), conformance::WINDOW);
            conformance::$case(&store, &now_ms).await;
            assert_eq!($crate::InspectionStore::check(&store).await.unwrap().problems, Vec::<String>::new());
        }
    )* };
}
