// SPDX-License-Identifier: MIT
/* What is taken is written again, to the same bytes: the stream's header with its configuration, a command, a
 * message of the return path. The first byte chooses. A writer may refuse what its reader took, and then has
 * written nothing. */
#include "control/stream_write.h"
#include "core/base/alloc.h"
#include "tests/fuzz/fuzz.h"

static void judge(const struct gw_writer *w, int rc, const struct gw_error *err,
                  const uint8_t *data, size_t bytes)
{
    if (rc < 0) {
        FUZZ_MUST(rc == -EINVAL && w->bytes == 0);
        fuzz_refused(rc, err);
        return;
    }
    FUZZ_MUST(w->bytes == bytes && memcmp(w->data, data, bytes) == 0);
}

static void header(struct gw_input *in, struct gw_writer *w)
{
    static struct gw_configuration taken, again;
    struct gw_error err = GW_ERROR_INIT;
    struct gw_input written;
    struct gw_writer twice;
    if (gw_stream_take_header(in, &taken, &err) < 0)
        return;
    FUZZ_MUST(gw_stream_write_configuration(w, &taken, &err) == 0);
    gw_input_memory(&written, w->data, w->bytes, 0);
    FUZZ_MUST(gw_stream_take_header(&written, &again, &err) == 0 && gw_input_is_empty(&written));
    gw_writer_init(&twice, w->bytes); /* of what was taken the order may have been another */
    FUZZ_MUST(gw_stream_write_configuration(&twice, &again, &err) == 0);
    judge(&twice, 0, &err, w->data, w->bytes);
    gw_writer_fini(&twice);
    FUZZ_MUST(strcmp(taken.machine, again.machine) == 0 && taken.page_bits == again.page_bits &&
              taken.capability_count == again.capability_count && taken.has_uuid == again.has_uuid);
}

static int write_discard(struct gw_writer *w, const struct gw_command_item *c, struct gw_error *err)
{
    struct gw_discard_range *ranges = gw_zalloc(c->ranges, sizeof(*ranges));
    FUZZ_MUST(ranges != NULL);
    for (unsigned i = 0; i < c->ranges; i++)
        ranges[i] = gw_command_range(c, i);
    int rc = gw_stream_write_discard(w, c->block, ranges, c->ranges, err);
    gw_free(ranges);
    return rc;
}

static void command(struct gw_input *in, struct gw_writer *w)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_command_item c;
    const uint8_t *at;
    if (gw_input_look(in, 1, &at) == 0 || *at != GW_ITEM_COMMAND)
        return;
    gw_input_skip(in, 1);
    if (gw_stream_take_command(in, &c, &err) < 0 || c.command == GW_COMMAND_PACKAGED)
        return;
    int rc = c.command == GW_COMMAND_POSTCOPY_RAM_DISCARD ? write_discard(w, &c, &err)
                                                          : gw_stream_write_command(w, &c, &err);
    judge(w, rc, &err, in->data, in->at);
}

static void message(struct gw_input *in, struct gw_writer *w)
{
    struct gw_error err = GW_ERROR_INIT;
    struct gw_return_item item = {.is_named = true};
    if (gw_return_take(in, &item, &err) < 0)
        return;
    int rc;
    if (item.type == GW_RETURN_RECV_BITMAP) /* the bitmap stands in front of its end mark */
        rc = gw_return_write_bitmap(w, item.block, in->data + in->at - 8 - item.start, item.start,
                                    &err);
    else
        rc = gw_return_write(w, &item, &err);
    judge(w, rc, &err, in->data, in->at);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct gw_input in;
    struct gw_writer w;
    if (bytes == 0)
        return 0;
    gw_input_memory(&in, data + 1, bytes - 1, 0);
    gw_writer_init(&w, bytes);
    switch (data[0] % 3) {
    case 0:
        header(&in, &w);
        break;
    case 1:
        command(&in, &w);
        break;
    default:
        message(&in, &w);
    }
    gw_writer_fini(&w);
    return 0;
}
