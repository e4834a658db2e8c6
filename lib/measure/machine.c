/* What the system says about the machine. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/opts.h"
#include "measure/measure.h"

#define MAX_CACHES 16
#define CPU_TEXT 128

/* "266240K" */
static size_t cache_size(int index)
{
	char path[96], *text = NULL;
	uint64_t size = 0;

	snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/size", index);
	if (moe_read_file(path, 64, &text, NULL, NULL))
		return 0;
	text[strcspn(text, "\n")] = 0;
	if (!moe_parse_size(text, &size))
		size = 0;
	free(text);
	return (size_t)size;
}

size_t moe_machine_cache(void)
{
	size_t most = 0;

	for (int i = 0; i < MAX_CACHES; i++) {
		size_t size = cache_size(i);

		most = size > most ? size : most;
	}
	return most;
}

const char *moe_machine_cpu(char *buf)
{
	char line[256];
	FILE *f = fopen("/proc/cpuinfo", "r");

	snprintf(buf, CPU_TEXT, "unknown");
	while (f && fgets(line, sizeof line, f)) {
		char *colon = strchr(line, ':');

		if (strncmp(line, "model name", 10) != 0 || !colon)
			continue;
		line[strcspn(line, "\n")] = 0;
		snprintf(buf, CPU_TEXT, "%s", colon + 1 + strspn(colon + 1, " "));
		break;
	}
	if (f)
		fclose(f);
	return buf;
}
