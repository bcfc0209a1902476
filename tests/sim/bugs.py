#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Is the simulator awake? Each of these bugs is put into a copy of the tree, one at a time, and the
simulator must find it. By hand: `tests/sim/bugs.py [NAME]...`; it prints how many seeds each took. With --check
it only looks whether what they break is still there.

A bug is one or more replacements (file, old text, new text); the old text must be there exactly once, so
whoever changes such a line changes this table."""

import os
import re
import subprocess
import sys
import tempfile

BUGS = {
    "a_fence_join_is_dropped": [
        ("core/target_load.c", "    if (tgt->fence_count == 0) {\n",
         "    if (number == tgt->fence)\n        return;\n    if (tgt->fence_count == 0) {\n"),
        ("core/target_load.c", "if (++tgt->fence_count == tgt->reply.endpoints)",
         "if (++tgt->fence_count == 1)"),
    ],
    "the_last_round_ends_twice": [
        ("core/precopy.c", "void gw_source_maybe_over(struct gw_source *src)\n{\n",
         "void gw_source_maybe_over(struct gw_source *src)\n{\n"
         "    if (src->step == GW_SRC_FINAL_SEND && src->fenced_count == src->page_count)\n"
         "        gw_source_final_fenced(src);\n"),
    ],
    "devices_are_loaded_before_the_last_join": [
        ("core/target_load.c",
         "return tgt->final_joined || tgt->items_first->data[0] != GW_ITEM_END;", "return true;"),
    ],
    "the_source_resumes_on_link_loss_after_commit": [
        ("core/handover.def", "GW_SOURCE(COMMITTED, LINK_LOST,       ASKING,    RECONNECT)",
         "GW_SOURCE(COMMITTED, LINK_LOST,       RETAKING,  CALL_RETAKE)"),
    ],
    "an_unknown_session_is_taken_for_void": [
        ("core/handover.def", "GW_SOURCE(ASKING,    SAID_UNKNOWN,    ASKING,    RECONNECT)",
         "GW_SOURCE(ASKING,    SAID_UNKNOWN,    RETAKING,  CALL_RETAKE)"),
    ],
    "not_committed_is_answered_without_voiding": [
        ("core/target_settle.c", "    if (msg->u.ask.attempt <= tgt->attempt)\n        return false;\n",
         "    if (msg->u.ask.attempt <= tgt->attempt)\n        return false;\n"
         "    if (outcome_of(tgt) == GW_OUTCOME_NONE && tgt->hs == GW_HT_PREPARED) {\n"
         "        struct gw_message no = {.type = GW_MSG_OUTCOME};\n"
         "        no.u.outcome.token = tgt->token;\n"
         "        no.u.outcome.outcome = GW_OUTCOME_VOID;\n"
         "        no.u.outcome.error.struct_bytes = sizeof(no.u.outcome.error);\n"
         "        gw_channel_send(candidate->channel, &no);\n"
         "        return false;\n"
         "    }\n"),
    ],
    "a_declined_guest_resumes_without_its_disk": [
        ("core/handover.def",
         "GW_SOURCE(COMMITTED, SAID_DECLINED,   RETAKING,  SEND_ACK | CALL_RETAKE)",
         "GW_SOURCE(COMMITTED, SAID_DECLINED,   RESUMING,  SEND_ACK | CALL_RESUME)"),
    ],
    "the_target_runs_before_it_has_acquired": [
        ("core/handover.def", "GW_TARGET(PREPARED,    COMMITTED,       ACQUIRING,   CALL_ACQUIRE)",
         "GW_TARGET(PREPARED,    COMMITTED,       STARTING,    SET_RUNNING | CALL_RUN)"),
    ],
    "a_cancel_that_won_is_ignored": [
        ("core/source_settle.c", "    if (src->hs == GW_HS_RELEASING &&\n        !atomic",
         "    if (src->hs == GW_HS_RELEASING && rc > 0 &&\n        !atomic"),
    ],
    "a_dirty_page_is_cleared_after_it_was_read": [
        # the last round of a guest that wrote while its log was synced
        ("ram/dirty.c",
         "    int rc = source->ops.sync(source->ctx, block->id, first_page, pages, bits, NULL);\n",
         "    int rc = source->ops.sync(source->ctx, block->id, first_page, pages, bits, NULL);\n"
         "    if (block->id == 1)\n        gw_bitmap_clear_range(block->dirty, first_page, 1);\n"),
    ],
    "bits_of_a_failed_put_are_forgotten": [
        ("ram/send.c", "            if (status < 0)\n                set_bits(", "            if (status < 0 && !s)\n                set_bits("),
        ("ram/send.c", "        if (s->flying[i].used)\n            set_bits(", "        if (s->flying[i].used && !s)\n            set_bits("),
    ],
    "a_failed_sync_is_forgotten": [
        ("ram/dirty.c",
         "    gw_bitmap_set_range(bits, 0, pages);\n"
         "    rc = source->ops.sync(source->ctx, block->id, first_page, pages, bits, err);\n",
         "    rc = 0;\n    (void)err;\n"),
    ],
    "a_discard_is_forgotten": [
        ("core/discard.c", "        gw_bitmap_set_range(block->bits, first_page, pages);\n", ""),
    ],
    "zero_pages_are_not_said_in_later_rounds": [
        ("ram/send.c", "    int rc = sink->ops->zero(sink, message->run, message->count);\n",
         "    int rc = s->number > 1 ? 0 : sink->ops->zero(sink, message->run, message->count);\n"),
    ],
    "a_dead_peer_is_never_noticed": [
        ("control/channel.c", "        rc = judge(ch, now_ns);\n", "        (void)judge;\n"),
    ],
    "a_control_channel_leaks": [
        ("core/target.c", "    gw_channel_free(tgt->channel);\n    tgt->channel = NULL;\n",
         "    if (!tgt->attempt)\n        gw_channel_free(tgt->channel);\n    tgt->channel = NULL;\n"),
    ],
    "a_failed_allocation_loses_the_answer": [
        ("core/source.c", "    gw_mail_post(&src->inbox, &asked->done);\n",
         "    if (asked->rc >= 0)\n        gw_mail_post(&src->inbox, &asked->done);\n"),
    ],
    # A host whose source died comes back:
    "a_new_session_is_taken_while_another_is_held": [
        ("core/target_setup.c", "    if (msg->type == GW_MSG_HELLO && tgt->step == GW_TGT_LISTEN)\n",
         "    bool held = tgt->hs == GW_HT_HOLDING;\n"
         "    if (msg->type == GW_MSG_HELLO && held)\n        tgt->hs = GW_HT_LOADING;\n"
         "    if (msg->type == GW_MSG_HELLO && (held || tgt->step == GW_TGT_LISTEN))\n"),
    ],
    # One-sided wires:
    "what_the_sync_of_a_chunk_found_is_forgotten": [
        ("ram/dirty.c", "                dirty[page / 64] |= bits[(page - first_page) / 64];\n",
         "                dirty[page / 64] |= page == first_page ? 0 : bits[(page - first_page) / 64];\n"),
    ],
    "a_page_whose_chunk_is_not_ready_is_forgotten": [
        ("ram/scan.c", "            gw_chunks_want(scan->chunks, block, page);\n",
         "            gw_chunks_want(scan->chunks, block, page);\n"
         "            gw_bitmap_clear_range(block->dirty, page, 1);\n"),
    ],
    "a_chunk_that_went_is_not_wished_for_again": [
        ("ram/chunk_owner.c", "    if (state != GW_CHUNK_NONE && state != GW_CHUNK_EVICTING)\n",
         "    if (state != GW_CHUNK_NONE || chunk->ready_generation)\n"),
    ],
    "a_chunk_goes_without_asking_its_owners": [
        ("core/page_out.c", "    if (!visit->mark) {\n", "    if (visit)\n        return 1;\n    if (!visit->mark) {\n"),
    ],
    "a_chunk_goes_before_its_puts_are_in_place": [
        ("core/page_out.c", "    return gw_sender_mark_is_passed(out->sender, visit->mark);\n", "    return 1;\n"),
    ],
    "a_wish_goes_beyond_the_targets_budget": [
        ("ram/chunk_wish.c",
         " ||\n                           wish->bytes > chunks->config.remote_budget - chunks->remote_used;\n", ";\n"),
    ],
    "budget_is_back_before_the_target_gave_it": [
        ("ram/chunk_evict.c", "    chunk->mr = NULL;\n    chunk->rmr = NULL;\n    chunk->is_out = true;\n",
         "    chunk->mr = NULL;\n    chunk->rmr = NULL;\n    chunk->is_out = true;\n"
         "    chunks->remote_used -= victim->bytes;\n    chunks->remote_evicting -= victim->bytes;\n"),
        ("ram/chunk_evict.c",
         "    chunks->remote_used -= which->bytes;\n    chunks->remote_evicting -= which->bytes;\n", ""),
    ],
    "a_put_counts_as_a_sign_of_life": [
        ("control/channel.c", "    if (ch->is_one_sided ? ch->is_said : attr.tx_bytes != ch->tx_seen)\n",
         "    if (attr.tx_bytes != ch->tx_seen)\n"),
    ],
    "an_owner_that_has_fenced_lets_nothing_go": [
        ("core/page_out.c", "    while (*at) {\n", "    while (*at && !out->hushed) {\n"),
    ],
    "a_wish_gets_its_key_before_its_memory_is_ready": [
        ("ram/lend.c", "    lend->key_bytes = (size_t)gw_mr_pack(lend->mr, lend->key);\n",
         "    lend->key_bytes = (size_t)gw_mr_pack(lend->mr, lend->key);\n"
         "    gw_mr_dereg(lend->mr);\n    lend->mr = NULL;\n"),
    ],
    "what_is_lent_leaks": [
        ("ram/lend.c", "            if (lend)\n                lend_free(lend);\n", ""),
    ],
    "packets_of_a_device_are_loaded_as_they_come": [
        ("core/target_packets.c",
         "loading->loads_packet || packet->number != loading->packet + 1 ||",
         "loading->loads_packet ||"),
    ],
    "the_last_fence_does_not_wait_for_packets": [
        ("core/source_packets.c",
         "return !packing || (packing->left == 0 && packing->loaded == packing->made);",
         "return !packing || packing->left == 0;"),
        ("core/target_load.c", "if (tgt->fence_final && !gw_target_packets_are_loaded(tgt)) {",
         "if (false) {"),
    ],
    "the_guest_resumes_while_a_worker_saves": [
        ("core/source_settle.c", " || !gw_source_packets_are_quiet(src)", ""),
        ("core/source_packets.c",
         "if (atomic_load_explicit(&src->packing->given_up, memory_order_relaxed)) {",
         "if (false) {"),
    ],
    "more_is_under_way_than_was_granted": [
        ("core/source_packets.c",
         "packing->made_bytes - packing->loaded_bytes + charge > src->granted.packet_bytes_max",
         "false"),
    ],
}


def run(command, **kwargs):
    return subprocess.run(command, text=True, capture_output=True, **kwargs)


def copy_tree(root, to):
    files = run(["git", "ls-files", "-z"], cwd=root, check=True).stdout.split("\0")
    existing = [f for f in files if f and os.path.exists(os.path.join(root, f))]
    run(["cp", "--parents", "-p", "-t", to] + existing, cwd=root, check=True)


def edit(tree, replacements, write=True):
    """Returns the old texts, to put them back."""
    kept, texts = {}, {}
    for name, old, new in replacements:
        path = os.path.join(tree, name)
        text = texts.get(path) or open(path).read()
        kept.setdefault(path, text)
        if text.count(old) != 1:
            sys.exit(f"bugs.py: {name}: the text to break is there {text.count(old)} times:\n{old}")
        texts[path] = text.replace(old, new)
    for path, text in texts.items() if write else ():
        open(path, "w").write(text)
    return kept


def build(tree):
    built = run(["cmake", "--build", "build", "-j2", "--target", "sim"], cwd=tree)
    if built.returncode:
        sys.exit("bugs.py: does not build:\n" + built.stdout[-3000:])


def explore(tree):
    found = run(["build/bin/sim", "--count", "200000", "--seconds", "120", "--jobs", "2"], cwd=tree)
    match = re.search(r"seed (\d+) fails, after (\d+)", found.stderr)
    why = [line for line in found.stderr.splitlines() if line.startswith(("VIOLATED", "godwit"))]
    if found.returncode == 0 or not match:
        return None, found.stdout.strip()
    return int(match.group(1)) + 1, why[0] if why else "it crashes"


def main():
    if sys.argv[1:] == ["--check"]:
        for replacements in BUGS.values():
            edit(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), replacements, False)
        return
    root = run(["git", "rev-parse", "--show-toplevel"], check=True).stdout.strip()
    wanted = sys.argv[1:] or list(BUGS)
    missed = 0
    with tempfile.TemporaryDirectory() as tree:
        copy_tree(root, tree)
        run(["cmake", "-S", ".", "-B", "build", "-G", "Ninja", "-DGODWIT_TESTS=ON",
             "-DCMAKE_BUILD_TYPE=RelWithDebInfo"], cwd=tree, check=True)
        for name in wanted:
            kept = edit(tree, BUGS[name])
            build(tree)
            seeds, why = explore(tree)
            missed += seeds is None
            print(f"{name}: " + (f"{seeds} seeds: {why}" if seeds else f"NOT FOUND: {why}"), flush=True)
            for path, text in kept.items():
                open(path, "w").write(text)
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
