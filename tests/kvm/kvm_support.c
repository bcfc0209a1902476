// SPDX-License-Identifier: MIT
/* Chains of godwit-kvm (kvm_support.h). The last process listens first, for each one is told where the next
 * is; so the first one's guest goes through all of them without a word from here. */
#include "tests/kvm/kvm_support.h"

#include "tests/shim/gw_test.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define HOPS_MAX 24
/* A host that is busy with everything else leaves an emulated one no time to say that it lives. */
#define PATIENT "x-peer-timeout=60000"
#define FILES_MAX 256

static char folder[64], files[FILES_MAX][128];
static unsigned file_count;

static void remove_files(void)
{
    for (unsigned i = 0; i < file_count; i++)
        unlink(files[i]);
    rmdir(folder);
}

const char *kvm_file(const char *name)
{
    if (!folder[0]) {
        snprintf(folder, sizeof(folder), "/tmp/godwit-kvm.XXXXXX");
        GW_ASSERT(mkdtemp(folder) != NULL);
        atexit(remove_files);
    }
    GW_ASSERT(file_count < FILES_MAX);
    char *path = files[file_count++];
    snprintf(path, sizeof(files[0]), "%s/%s", folder, name);
    unlink(path);
    return path;
}

long kvm_ticks(const char *serial_path)
{
    FILE *file = fopen(serial_path, "re");
    char line[128];
    long last = 0, number;
    GW_ASSERT(file != NULL);
    if (!fgets(line, sizeof(line), file))
        last = -1;
    while (last >= 0 && fgets(line, sizeof(line), file)) {
        char *newline = strchr(line, '\n');
        if (!newline)
            break; /* the guest was ended in the midst of it */
        if (sscanf(line, "tick %ld", &number) == 1 && number == last + 1) {
            last = number;
        } else {
            GW_NOTE_FAILURE("behind tick %ld the guest said: %s", last, line);
            last = -1;
        }
    }
    fclose(file);
    return last;
}

static void add(const char *words[48], unsigned *count, const char *const *more)
{
    for (; more && *more && *count < 47; more++)
        words[(*count)++] = *more;
    words[*count] = NULL;
}

static void judge(struct kvm_chain *chain, unsigned index, struct command *command)
{
    int status = command_finish(command);
    json_t *document = command_document(command);
    double late_ms = fabs(json_real_at(document, "guest", "clock-late-ms"));
    if (status != 0 || !json_is_true(json_at(document, "guest", "verified")) ||
        json_count_at(document, "guest", "broken") != 0)
        GW_NOTE_FAILURE("process %u of %u ended with %d; it said: %s%s", index, chain->hops, status,
                        command->err.text, command->out.text);
    /* What two clocks differ by is no duration, so a busy host does not lengthen it; an emulated host's own
     * clocks, though, stand still and jump. */
    if (!getenv("RIG_ADDR"))
        GW_EXPECT_LT(late_ms, 5.0);
    if (late_ms > chain->clock_late_ms_max)
        chain->clock_late_ms_max = late_ms;
    json_decref(document);
}

void kvm_run_chain(struct kvm_chain *chain)
{
    static struct command commands[HOPS_MAX + 1];
    static char uris[HOPS_MAX + 1][256];
    const char *serial = kvm_file("serial"), *words[48];
    GW_ASSERT(chain->hops >= 1 && chain->hops <= HOPS_MAX);
    for (unsigned i = chain->hops; i >= 1; i--) {
        unsigned count = 0;
        char here[256];
        snprintf(here, sizeof(here), "%s", chain->uri);
        if (strcmp(chain->uri, "unix:") == 0) {
            char name[32];
            snprintf(name, sizeof(name), "socket%u", i);
            snprintf(here, sizeof(here), "unix:%s", kvm_file(name));
        }
        add(words, &count,
            (const char *const[]){"receive", here, "--quiet", "--json", "-", "--serial", serial,
                                  "--run-for", chain->run_for, "--set", PATIENT, NULL});
        if (i < chain->hops)
            add(words, &count, (const char *const[]){"--then", uris[i + 1], NULL});
        add(words, &count, chain->receivers);
        command_start(&commands[i], words);
        GW_ASSERT(command_await_uri(&commands[i], uris[i], sizeof(uris[i])));
    }
    unsigned count = 0;
    add(words, &count,
        (const char *const[]){"send", uris[1], "--quiet", "--json", "-", "--serial", serial,
                              "--warmup", chain->run_for, "--set", PATIENT, NULL});
    add(words, &count, chain->options);
    command_start(&commands[0], words);
    for (unsigned i = 0; i <= chain->hops; i++)
        judge(chain, i, &commands[i]);
    GW_EXPECT_GT(kvm_ticks(serial), 0);
}

void kvm_boot(struct vmm_machine *machine, unsigned vcpus, uint32_t ring_bytes)
{
    const struct vmm_boot boot = {.ram_bytes = 8u << 20,
                                  .hot_bytes = 4u << 20,
                                  .rate_bytes = 1u << 30, /* as fast as it can */
                                  .blocks = 2};
    struct vmm_machine_config config = {.vcpus = vcpus,
                                        .memory = VMM_MEMFD,
                                        .ring_bytes = ring_bytes,
                                        .serial_fd = open("/dev/null", O_WRONLY | O_CLOEXEC)};
    if (vmm_machine_new(machine, &config) < 0 || vmm_boot(machine, &boot) < 0)
        GW_FAIL("%s", machine->why);
}
