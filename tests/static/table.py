"""The statements of STATIC.md as one table of requests: `ROWS`. Run by test_table against live servers.

    python -m tests.static.table DIRECTORY

builds the tree that they ask for, to be served by another server; EPOLLWSGI_TEST_STATIC_URL=http://HOST:PORT and
EPOLLWSGI_TEST_STATIC_ROOT=DIRECTORY then make test_table ask that server.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.static import table_codings, table_conditions, table_mapping, table_rules
from tests.static.table_fixture import build_tree
from tests.static.table_rows import Row

ROWS: tuple[Row, ...] = (*table_mapping.ROWS, *table_conditions.ROWS, *table_codings.ROWS, *table_rules.ROWS)

# Each statement by section and bullet, with the functions in tests/static/ that say what rows alone cannot.
STATEMENTS: dict[str, str] = {
    "1.1": "test_no_spelling_leads_out",
    "1.2": "test_what_is_no_regular_file test_a_link_out_of_the_site_that_comes_and_goes test_the_walk_is_what_it_says",
    "1.3": "test_links",
    "1.4": "test_unreadable_and_oddly_named_files",
    "1.5": "test_a_root_that_holds_the_application_is_refused",
    "1.6": "",
    "2.1": "test_beside_an_application",
    "2.2": "",
    "2.3": "test_head_says_what_get_says",
    "2.4": "test_a_body_beyond_all_bounds_ends_the_connection",
    "3.1": "",
    "3.2": "",
    "3.3": "",
    "3.4": "",
    "3.5": "",
    "3.6": "",
    "4.1": "",
    "4.2": "",
    "4.3": "test_curl_gets_several_ranges",
    "4.4": "",
    "4.5": "",
    "4.6": "",
    "5.1": "",
    "5.2": "test_a_copy_of_something_else_is_reported",
    "5.3": "",
    "5.4": "",
    "5.5": "test_a_file_that_is_asked_for_is_compressed_once test_nothing_is_compressed_unasked",
    "6.1": "test_the_tag_is_the_same_on_all_nodes test_a_tag_is_weak_while_the_file_may_change_unseen",
    "6.2": "test_the_bytes_are_bounded test_descriptors_are_bounded test_what_clients_can_fill_is_bounded",
    "6.3": "test_changes_are_seen_without_a_restart",
    "6.4": "test_a_file_that_changes_while_it_is_sent test_a_file_that_shrinks_while_it_is_sent_ends_the_connection",
    "6.5": "test_a_slow_reader_does_not_hold_up_others",
    "6.6": "test_a_shortage_of_descriptors",
    "7.1": "",
    "7.2": "",
    "7.3": "test_bad_rules_are_said_at_the_start_and_the_others_hold test_rules_are_read_again_when_they_change",
    "8.1": "",
    "8.2": "",
    "8.3": "test_changes_are_seen_without_a_restart",
    "8.4": "",
    "8.5": "test_beside_an_application_a_miss_under_a_prefix_is_its_own",
}


if __name__ == "__main__":
    print(build_tree(Path(sys.argv[1]).resolve()))
