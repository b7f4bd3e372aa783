/*
 * bench [pair|name|threads|preserve|sessions|nothing]: how long calls take, one figure a line: name, value, unit.
 *
 * pair: median of create and close. name: median of GET_NAME. threads: calls per second of four threads that create
 * and close. preserve: one populated memfd of 1 GiB. sessions [N]: makes N (default 2000) and leaves a custodian,
 * in the next stage ends. nothing: a session with one file and a custodian. The last two are for timing a kexec.
 */
#include "luo.h"

#include <pthread.h>
#include <time.h>

const char *const test_name = "bench";

#define ROUNDS 4000
#define THREADS 4

static int device;

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int order(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void report(const char *what, double *times, int n)
{
	qsort(times, (size_t)n, sizeof *times, order);
	printf("%s %.1f us median, %.1f min, %.1f p99\n", what, times[n / 2], times[0], times[n * 99 / 100]);
}

static void pair(void)
{
	static double times[ROUNDS];

	for (int i = 0; i < ROUNDS; i++) {
		double begun = now();
		int session = luo_create(device, "pair");

		must(session >= 0);
		close(session);
		times[i] = now() - begun;
	}
	report("pair", times, ROUNDS);
}

static void name(void)
{
	static double times[ROUNDS];
	int session = luo_create(device, "named");

	must(session >= 0);
	for (int i = 0; i < ROUNDS; i++) {
		struct luo_name arg = { .size = sizeof arg };
		double begun = now();
		int r = ioctl(session, LUO_NAME, &arg);

		times[i] = now() - begun;
		must(r == 0);
	}
	report("get-name", times, ROUNDS);
}

static void *storm(void *arg)
{
	char own[64];

	snprintf(own, sizeof own, "t%d", (int)(intptr_t)arg);
	for (int i = 0; i < ROUNDS; i++) {
		int session = luo_create(device, own);

		must(session >= 0);
		close(session);
	}
	return NULL;
}

static void threads(void)
{
	pthread_t thread[THREADS];
	double begun = now();

	for (int i = 0; i < THREADS; i++)
		must(pthread_create(&thread[i], NULL, storm, (void *)(intptr_t)i) == 0);
	for (int i = 0; i < THREADS; i++)
		must(pthread_join(thread[i], NULL) == 0);
	printf("threads %.0f calls/s\n", THREADS * ROUNDS / ((now() - begun) / 1e6));
}

static void preserve(void)
{
	int session = luo_create(device, "big"), memory = luo_memfd("", 1L << 30);
	char *map = mmap(NULL, 1UL << 30, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, memory, 0);
	double begun;

	must(session >= 0 && map != MAP_FAILED);
	memset(map, 1, 1UL << 30);
	munmap(map, 1UL << 30);
	begun = now();
	must(luo_preserve(session, memory, 1) == 0);
	printf("preserve %.2f ms\n", (now() - begun) / 1e3);
}

static void sessions(int n)
{
	int memory = luo_memfd("x", 4096);

	for (int i = 0; i < n; i++) {
		char own[64];
		int session;

		snprintf(own, sizeof own, "s%d", i);
		session = luo_create(device, own);
		if (session < 0)
			fail("session %d: errno %d", i, errno);
		if (i == 0)
			must(luo_preserve(session, memory, 1) == 0);
	}
	luo_custodian();
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "pair";
	const char *generation = getenv("LUOSIM_GENERATION");

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (generation && atoi(generation) > 1)
		return 0;
	device = luo_open();
	if (!strcmp(what, "pair"))
		pair();
	else if (!strcmp(what, "name"))
		name();
	else if (!strcmp(what, "threads"))
		threads();
	else if (!strcmp(what, "preserve"))
		preserve();
	else
		sessions(strcmp(what, "sessions") ? 1 : argc > 2 ? atoi(argv[2]) : 2000);
	return 0;
}
