#include "tools.h"
#include <string.h>

static const struct {
    const char *name;
    int (*run)(int, char **);
} TOOLS[] = {
    {"nics", nics_main}, {"lease4", lease4_main}, {"metadata", metadata_main}, {"web", web_main},
    {"burn", burn_main},   {"forge", forge_main},   {"sniff", sniff_main},
    {"hang", hang_main},
};

int main(int argc, char **argv) {
    const char *name = strrchr(argv[0], '/');
    name = name ? name + 1 : argv[0];
    for (size_t i = 0; i < sizeof TOOLS / sizeof *TOOLS; i++)
        if (!strcmp(TOOLS[i].name, name))
            return TOOLS[i].run(argc, argv);
    die("no tool is called %s", name);
}
