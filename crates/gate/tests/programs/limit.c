/*
 * limit [1|2] [-k]: a limit of open files binds the program, not what it preserves.
 *
 * To be run with a soft limit of 200. Stage 1 preserves 128 memfds, as many as a session has in every release, and closes
 * each: it never has ten descriptors. Stage 2 takes them back one at a time. The limit is 200 in both.
 */
#include "luo.h"

#include <sys/resource.h>

const char *const test_name = "limit";

enum { FILES = 128, LIMIT = 200 };

static void text_of(int number, char *text, size_t size)
{
	snprintf(text, size, "file %d", number);
}

static void check_limit(void)
{
	struct rlimit limit;

	must(getrlimit(RLIMIT_NOFILE, &limit) == 0);
	if (limit.rlim_cur != LIMIT)
		fail("the soft limit is %llu, want %d", (unsigned long long)limit.rlim_cur, LIMIT);
}

static void first(void)
{
	int device = luo_open(), session = luo_create(device, "limit");
	char text[32];

	must(session >= 0);
	for (int i = 0; i < FILES; i++) {
		text_of(i, text, sizeof text);
		int file = luo_memfd(text, 4096);
		must(luo_preserve(session, file, (uint64_t)i) == 0);
		must(close(file) == 0);
	}
	close(device);
}

static void second(void)
{
	int device = luo_open(), session = luo_take(device, "limit");
	char text[32];

	must(session >= 0);
	for (int i = 0; i < FILES; i++) {
		int file = luo_retrieve(session, (uint64_t)i);
		must(file >= 0);
		text_of(i, text, sizeof text);
		luo_check_text(file, text, 0);
		must(close(file) == 0);
	}
	must(luo_finish(session) == 0);
}

int main(int argc, char **argv)
{
	check_limit();
	if (luo_stage(argc, argv) != 1) {
		second();
		pass();
	}
	first();
	if (!luo_has(argc, argv, "-k"))
		luo_custodian();
	luo_end_stage(argc, argv);
}
