// SPDX-License-Identifier: MIT
/* `godwit compat` as scripts see it: machines that QEMU 7.2 recorded (tests/data/streams), what analyze made
 * of them, exit statuses, the table and the document. */
#include "tests/shim/gw_test.h"
#include "tests/support/command.h"
#include "tests/support/recording.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct command command;
static char folder[64], older[128], newer[128], line[1024];

static const char *godwit(void)
{
    const char *path = getenv("GODWIT");
    return path && path[0] ? path : GW_TEST_GODWIT;
}

static void write_file(const char *path, const void *data, size_t bytes)
{
    FILE *file = fopen(path, "wb");
    GW_ASSERT(file != NULL);
    GW_ASSERT_EQ(fwrite(data, 1, bytes, file), bytes);
    GW_ASSERT_EQ(fclose(file), 0);
}

static void write_golden(const char *name, const char *path)
{
    size_t bytes;
    uint8_t *data = recording_golden(name, &bytes);
    write_file(path, data, bytes);
    free(data);
}

static void begin(const char *old_name, const char *new_name)
{
    strcpy(folder, "/tmp/godwit-compat-XXXXXX");
    GW_ASSERT(mkdtemp(folder) != NULL);
    snprintf(older, sizeof(older), "%s/older", folder);
    snprintf(newer, sizeof(newer), "%s/newer", folder);
    write_golden(old_name, older);
    write_golden(new_name, newer);
}

static void end(void)
{
    snprintf(line, sizeof(line), "rm -rf '%s'", folder);
    GW_EXPECT_EQ(system(line), 0);
}

#define COMPAT(...)                                                                                \
    (command_start(&command, (const char *const[]){"compat", __VA_ARGS__, NULL}),                  \
     command_finish(&command))

/* How many findings have this text for @key. */
static unsigned count_of(json_t *document, const char *key, const char *text)
{
    json_t *finding;
    size_t i;
    unsigned count = 0;
    json_array_foreach(json_at(document, "findings", NULL), i, finding) count +=
        strcmp(json_text_at(finding, key, NULL), text) == 0;
    return count;
}

GW_TEST(compat_command, a_machine_is_compatible_with_itself)
{
    begin("pc", "uuid");
    GW_EXPECT_EQ(COMPAT(older, newer), 0);
    GW_EXPECT(strstr(command.out.text, "\nold to new: ok\nnew to old: ok\n") != NULL);
    GW_EXPECT(strstr(command.out.text, "machine pc-i440fx-7.2") != NULL);
    GW_EXPECT_EQ(COMPAT(older, newer, "--json"), 0);
    json_t *document = command_document(&command);
    GW_EXPECT_STREQ(json_text_at(document, "schema", NULL), "godwit.compat/1");
    GW_EXPECT_STREQ(json_text_at(document, "old-to-new", NULL), "ok");
    GW_EXPECT_EQ(json_array_size(json_at(document, "findings", NULL)), 0);
    GW_EXPECT_EQ(json_count_at(document, "compared", NULL), 30);
    GW_EXPECT_STREQ(json_text_at(document, "old", "source"), "stream");
    GW_EXPECT_STREQ(json_text_at(document, "new", "machine"), "pc-i440fx-7.2");
    json_decref(document);
    end();
}

GW_TEST(compat_command, devices_that_were_added_break_the_way_back)
{
    begin("pc", "pc-many");
    GW_EXPECT_EQ(COMPAT(older, newer, "--json"), 5);
    json_t *document = command_document(&command);
    GW_EXPECT_STREQ(json_text_at(document, "new-to-old", NULL), "breaks");
    json_t *finding;
    size_t i;
    unsigned found = 0;
    json_array_foreach(json_at(document, "findings", NULL), i, finding)
    {
        if (strcmp(json_text_at(finding, "device", NULL), "0000:00:05.0/e1000") != 0)
            continue;
        found++;
        GW_EXPECT_STREQ(json_text_at(finding, "kind", NULL), "device");
        GW_EXPECT_STREQ(json_text_at(finding, "new-to-old", NULL), "breaks");
        GW_EXPECT_STREQ(json_text_at(finding, "old-to-new", NULL), "may break");
        GW_EXPECT_STREQ(json_text_at(finding, "new", NULL), "version 2");
    }
    GW_EXPECT_EQ(found, 1);
    GW_EXPECT_GE(count_of(document, "kind", "device"), 20);
    GW_EXPECT_GE(count_of(document, "kind", "block"), 1);
    json_decref(document);
    end();
}

GW_TEST(compat_command, another_machine_type_breaks_both_ways)
{
    begin("pc", "microvm-blk");
    GW_EXPECT_EQ(COMPAT(older, newer), 5);
    GW_EXPECT(strstr(command.out.text, "\nold to new: breaks\nnew to old: breaks\n") != NULL);
    GW_EXPECT(strstr(command.out.text, "another machine type is refused") != NULL);
    end();
}

GW_TEST(compat_command, footers_are_both_sides_choice)
{
    begin("pc", "no-footers");
    GW_EXPECT_EQ(COMPAT(older, newer), 5);
    GW_EXPECT(strstr(command.out.text,
                     "breaks      breaks      only one has section footers: there | -\n") != NULL);
    GW_EXPECT(strstr(command.out.text,
                     "breaks      breaks      0000:00:01.3/piix4_pm: smb: a field "
                     "that is gone, and the version is the same") != NULL);
    end();
}

/* Field by field, whatever the two sides came as: the stream, what analyze wrote, the description alone. */
GW_TEST(compat_command, an_analysis_and_a_description_stand_for_the_stream)
{
    begin("pc-many", "pc-many");
    snprintf(line, sizeof(line),
             "cd %s && %s analyze --json older >analysis && python3 -c 'import json; "
             "json.dump(json.load(open(\"analysis\"))[\"description\"], "
             "open(\"description\", \"w\"))'",
             folder, godwit());
    GW_ASSERT_EQ(system(line), 0);
    char analysis[128], description[128];
    snprintf(analysis, sizeof(analysis), "%s/analysis", folder);
    snprintf(description, sizeof(description), "%s/description", folder);
    const char *const sides[] = {older, analysis, description};
    for (unsigned i = 0; i < 9; i++) {
        GW_EXPECT_EQ(COMPAT(sides[i / 3], sides[i % 3], "--json"), 0);
        json_t *document = command_document(&command);
        GW_EXPECT_EQ(json_array_size(json_at(document, "findings", NULL)), 0);
        GW_EXPECT_EQ(json_count_at(document, "compared", NULL), 53);
        json_decref(document);
    }
    end();
}

/* The description of a device, changed as a new version would: an edit of its text. */
static void edit(const char *script, const char *from, const char *to)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/edit.py", folder);
    FILE *file = fopen(path, "w");
    GW_ASSERT(file != NULL);
    fprintf(file,
            "import json, sys\n"
            "d = json.load(open(sys.argv[1]))['description']\n"
            "def device(name): return [x for x in d['devices'] if x['name'] == name][0]\n"
            "%s\njson.dump(d, open(sys.argv[2], 'w'))\n",
            script);
    GW_ASSERT_EQ(fclose(file), 0);
    snprintf(line, sizeof(line), "python3 '%s' '%s' '%s'", path, from, to);
    GW_ASSERT_EQ(system(line), 0);
}

GW_TEST(compat_command, a_new_version_of_a_device_is_judged_field_by_field)
{
    static const struct {
        const char *script, *path, *kind, *forward, *backward;
    } edits[] = {
        {"e = device('0000:00:05.0/e1000')\n"
         "e['subsections'].append({'vmsd_name': 'e1000/new', 'version': 1, 'fields': []})",
         "e1000/new", "subsection", "ok", "breaks"},
        {"e = device('0000:00:05.0/e1000'); e['version'] += 1\n"
         "e['fields'].append({'name': 'more', 'type': 'uint32', 'size': 4})",
         "more", "field", "may break", "breaks"},
        {"e = device('0000:00:05.0/e1000')\n"
         "e['fields'] = [f for f in e['fields'] if f['name'] != 'rxbuf_size']",
         "rxbuf_size", "field", "breaks", "breaks"},
        {"e = device('0000:00:05.0/e1000')\n"
         "f = [f for f in e['fields'] if f['name'] == 'parent_obj'][0]['struct']['fields'][-1]\n"
         "f['size'] += 4",
         NULL, "field", "may break", "may break"},
    };
    begin("pc-many", "pc-many");
    snprintf(line, sizeof(line), "%s analyze --json '%s' >'%s/analysis'", godwit(), older, folder);
    GW_ASSERT_EQ(system(line), 0);
    char analysis[128];
    snprintf(analysis, sizeof(analysis), "%s/analysis", folder);
    for (size_t i = 0; i < sizeof(edits) / sizeof(edits[0]); i++) {
        edit(edits[i].script, analysis, newer);
        int status = COMPAT(older, newer, "--json");
        json_t *document = command_document(&command), *finding;
        unsigned found = 0;
        size_t n;
        json_array_foreach(json_at(document, "findings", NULL), n, finding)
        {
            GW_EXPECT_STREQ(json_text_at(finding, "device", NULL), "0000:00:05.0/e1000");
            if (strcmp(json_text_at(finding, "kind", NULL), edits[i].kind) != 0)
                continue;
            found++;
            if (edits[i].path)
                GW_EXPECT_STREQ(json_text_at(finding, "path", NULL), edits[i].path);
            GW_EXPECT_STREQ(json_text_at(finding, "old-to-new", NULL), edits[i].forward);
            GW_EXPECT_STREQ(json_text_at(finding, "new-to-old", NULL), edits[i].backward);
        }
        GW_EXPECT_EQ(found, 1);
        GW_EXPECT_EQ(status, strcmp(edits[i].backward, "breaks") == 0 ? 5 : 0);
        json_decref(document);
    }
    end();
}

GW_TEST(compat_command, statuses_are_those_of_the_contract)
{
    begin("pc", "no-description");
    GW_EXPECT_EQ(COMPAT(older, newer), 0);
    GW_EXPECT(strstr(command.err.text, "by version alone") != NULL);
    GW_EXPECT_EQ(COMPAT(older, newer, "--quiet"), 0);
    GW_EXPECT_STREQ(command.err.text, "");
    GW_EXPECT_EQ(COMPAT(older, "/nowhere"), 1);
    GW_EXPECT_EQ(COMPAT(folder, newer), 1);
    write_file(newer, "{\"a\": 1}", 8);
    GW_EXPECT_EQ(COMPAT(older, newer), 1);
    GW_EXPECT(strstr(command.err.text, "describes no devices") != NULL);
    GW_EXPECT_EQ(COMPAT(older), 2);
    GW_EXPECT(strstr(command.err.text, "one was given") != NULL);
    GW_EXPECT_EQ(COMPAT("--json"), 2);
    GW_EXPECT_EQ(COMPAT(older, newer, "more"), 2);
    GW_EXPECT_EQ(COMPAT("-", "-"), 2);
    GW_EXPECT_EQ(COMPAT(older, newer, "--verify"), 2);
    GW_EXPECT_EQ(COMPAT("--help"), 0);
    end();
}

GW_TEST(compat_command, a_side_may_come_through_a_pipe)
{
    begin("pc", "pc-many");
    snprintf(line, sizeof(line), "%s compat '%s' - <'%s' | grep -q 'new to old: ok'", godwit(),
             older, older);
    GW_EXPECT_EQ(system(line), 0);
    snprintf(line, sizeof(line),
             "%s analyze --json '%s' | %s compat - '%s' | grep -q 'new to old: breaks'", godwit(),
             older, godwit(), newer);
    GW_EXPECT_EQ(system(line), 0);
    end();
}
