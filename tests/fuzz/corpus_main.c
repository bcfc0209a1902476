// SPDX-License-Identifier: MIT
/* main() of a fuzz target where there is no libFuzzer: runs each file named, and each file of a folder
 * named, once; `-` prefixed options of libFuzzer are passed over. Fails if there was none to run. */
#include "tests/fuzz/fuzz.h"

#include <dirent.h>
#include <sys/stat.h>

static unsigned replayed;

static void replay_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    FUZZ_MUST(file != NULL);
    FUZZ_MUST(fseek(file, 0, SEEK_END) == 0);
    long bytes = ftell(file);
    FUZZ_MUST(bytes >= 0);
    rewind(file);
    /* Exactly as long as the input: the sanitizer sees a read past its end. */
    uint8_t *data = malloc(bytes ? (size_t)bytes : 1);
    FUZZ_MUST(data != NULL);
    FUZZ_MUST(fread(data, 1, (size_t)bytes, file) == (size_t)bytes);
    fclose(file);
    printf("%s\n", path);
    fflush(stdout); /* the last line names the file that ended the program */
    LLVMFuzzerTestOneInput(data, (size_t)bytes);
    free(data);
    replayed++;
}

static void replay(const char *path)
{
    struct stat stat_of;
    FUZZ_MUST(stat(path, &stat_of) == 0);
    if (!S_ISDIR(stat_of.st_mode)) {
        replay_file(path);
        return;
    }
    DIR *dir = opendir(path);
    FUZZ_MUST(dir != NULL);
    for (struct dirent *entry = readdir(dir); entry; entry = readdir(dir)) {
        char name[4096];
        if (entry->d_name[0] == '.')
            continue;
        snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
        replay_file(name);
    }
    closedir(dir);
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (argv[i][0] != '-')
            replay(argv[i]);
    }
    printf("%u inputs\n", replayed);
    return replayed > 0 ? 0 : 1;
}
