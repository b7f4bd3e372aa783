/*
 * bench WHAT [N]: how long things take, one figure a line: name, value, unit.
 *
 * pair: median of create and close. name: median of GET_NAME. threads: calls per second of four threads that create
 * and close. preserve: one populated memfd of 1 GiB. open: median of open and close of a file that is not ours, as
 * compilers open (`native`) and with the device's flags (`notified`); needs no device. spawn: median of the time from
 * vfork to main of this program; needs no device.
 *
 * jump [N]: with N sessions (default 0) and one file loads an image and calls reboot(KEXEC), in each generation; says
 * when it did, and in the next one when main began. The last generation (LUOSIM_BENCH_LAST) only says the latter.
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

static void opens(void)
{
	static double native[ROUNDS], notified[ROUNDS];

	for (int i = 0; i < ROUNDS; i++) {
		double begun = now();

		close(open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
		native[i] = now() - begun;
		begun = now();
		close(open("/proc/self/exe", O_RDONLY));
		notified[i] = now() - begun;
	}
	report("native", native, ROUNDS);
	report("notified", notified, ROUNDS);
}

#define SPAWNS 50

static void spawn(char **argv)
{
	static double times[SPAWNS];

	for (int i = 0; i < SPAWNS; i++) {
		char *child[] = { argv[0], "at", NULL };
		double begun, at = 0;
		int pipes[2];
		FILE *from;
		pid_t pid;

		must(pipe(pipes) == 0);
		begun = now();
		pid = vfork();
		if (pid == 0) {
			dup2(pipes[1], 1);
			execv("/proc/self/exe", child);
			_exit(127);
		}
		must(pid > 0);
		close(pipes[1]);
		from = fdopen(pipes[0], "r");
		must(from && fscanf(from, "main %lf", &at) == 1);
		fclose(from);
		must(waitpid(pid, NULL, 0) == pid);
		times[i] = at - begun;
	}
	report("spawn", times, SPAWNS);
}

static void jump(int n)
{
	int memory = luo_memfd("x", 4096), device = luo_open();

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
	must(luo_load_image("kho=on liveupdate=on") == 0);
	printf("reboot %.1f\n", now());
	luo_kexec();
	fail("reboot(KEXEC) returned, errno %d", errno);
}

int main(int argc, char **argv)
{
	double begun = now();
	const char *what = argc > 1 ? argv[1] : "pair";
	const char *generation = getenv("LUOSIM_GENERATION"), *last = getenv("LUOSIM_BENCH_LAST");
	int n = argc > 2 ? atoi(argv[2]) : 0;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (!strcmp(what, "jump") || !strcmp(what, "at"))
		printf("main %.1f\n", begun);
	if (!strcmp(what, "at"))
		return 0;
	if (!strcmp(what, "spawn"))
		spawn(argv);
	else if (!strcmp(what, "open"))
		opens();
	else if (strcmp(what, "jump"))
		device = luo_open();
	else if (!generation || !last || strcmp(generation, last))
		jump(n);
	if (!strcmp(what, "pair"))
		pair();
	else if (!strcmp(what, "name"))
		name();
	else if (!strcmp(what, "threads"))
		threads();
	else if (!strcmp(what, "preserve"))
		preserve();
	return 0;
}
