// SPDX-License-Identifier: MIT
/* Both ends (ends.h). */
#include "tests/e2e/ends.h"

#include "tests/shim/gw_test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct command target, source, only;
char where[256];
static char folder[64];

bool ends_with(struct command *command, int expected)
{
    int status = command_finish(command);

    if (status == expected)
        return true;
    GW_NOTE_FAILURE("status %d, not %d; stdout: %s\nstderr: %s", status, expected,
                    command->out.text, command->err.text);
    return false;
}

bool status_is(int expected, const char *const *words)
{
    command_start(&only, words);
    return ends_with(&only, expected);
}

void said(const struct command_stream *stream, const char *text)
{
    if (!strstr(stream->text, text))
        GW_NOTE_FAILURE("'%s' is not in: %s", text, stream->text);
}

void await_listening(void)
{
    GW_ASSERT(command_await_uri(&target, where, sizeof(where)));
}

json_t *document_of(const struct command *command)
{
    json_t *document = command_document(command);
    GW_ASSERT(document != NULL);
    return document;
}

const char *path_in_folder(const char *name)
{
    static char paths[4][128];
    static unsigned next;
    char *path = paths[next++ % 4];

    if (folder[0] == '\0') {
        snprintf(folder, sizeof(folder), "/tmp/godwit-test-XXXXXX");
        GW_ASSERT(mkdtemp(folder) != NULL);
    }
    snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
    return path;
}

__attribute__((destructor)) static void remove_folder(void)
{
    static const char *const names[] = {"s", "json", "events", "pipe"};

    for (unsigned i = 0; folder[0] && i < sizeof(names) / sizeof(names[0]); i++) {
        char path[128];
        snprintf(path, sizeof(path), "%s/%s", folder, names[i]);
        unlink(path);
    }
    if (folder[0])
        rmdir(folder);
}

const char *listen_uri(const char *wire)
{
    static char uri[160];

    if (strcmp(wire, "tcp4") == 0)
        return "tcp:127.0.0.1:0";
    if (strcmp(wire, "tcp6") == 0)
        return "tcp:[::1]:0";
    snprintf(uri, sizeof(uri), "unix:%s", path_in_folder("s"));
    return uri;
}
