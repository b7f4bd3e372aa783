/*
 * soak [CYCLES [PROCESSES [SEED]]]: create/preserve/close from several processes, with random SIGKILLs.
 *
 * Defaults: 20000 cycles in all, 8 processes, seed 1. Processes share the device descriptor (inherited). A killer
 * ends a random process now and then, wherever it is; it is started again and goes on. A process that finds a name
 * of its own taken is wrong: its predecessor was waited for. At the end all names must be free, a memfd must be
 * preservable, and this process must have as many descriptors as before.
 */
#include "luo.h"

#include <dirent.h>
#include <sys/resource.h>
#include <time.h>

const char *const test_name = "soak";

#define MOST 64

static int device;
static long *left; /* shared: cycles left per process */

static unsigned next_random(unsigned *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 17;
	*state ^= *state << 5;
	return *state;
}

static void name_of(int process, unsigned k, char *name, size_t size)
{
	snprintf(name, size, "soak-%d-%u", process, k);
}

static void cycle(int process, unsigned random)
{
	char name[64];
	int session, files = (int)(random >> 8) % 4;

	name_of(process, random % 3, name, sizeof name);
	session = luo_create(device, name);
	if (session < 0)
		fail("process %d: create %s: errno %d", process, name, errno);
	for (int i = 0; i < files; i++) {
		int memory = memfd_create("soak", MFD_CLOEXEC);

		must(memory >= 0);
		must(pwrite(memory, name, sizeof name, 4096 * i) == sizeof name);
		if (luo_preserve(session, memory, (uint64_t)i) < 0)
			fail("process %d: preserve: errno %d", process, errno);
		close(memory);
	}
	close(session);
}

static pid_t start(int process, unsigned seed)
{
	pid_t child = fork();

	must(child >= 0);
	if (child)
		return child;
	seed = seed * 2654435761U + (unsigned)process + 1;
	while (left[process] > 0) {
		cycle(process, next_random(&seed));
		left[process]--;
	}
	_exit(0);
}

static int count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int n = 0;

	must(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

/* All names free, and a file can be preserved in each session. */
static void check_free(int processes)
{
	for (int p = 0; p < processes; p++)
		for (unsigned k = 0; k < 3; k++) {
			char name[64];
			int fd, memory = luo_memfd("free", 4096);

			name_of(p, k, name, sizeof name);
			fd = luo_create(device, name);
			if (fd < 0)
				fail("name %s still taken: errno %d", name, errno);
			must(luo_preserve(fd, memory, 0) == 0);
			close(fd);
			must(ftruncate(memory, 8192) == 0); /* released: may grow */
			close(memory);
		}
}

/* Ends of processes; a killed one starts again. Returns how many still run. */
static int reap(pid_t *pids, int processes, unsigned *seed, int *kills)
{
	int status, running = 0;
	pid_t ended;

	while ((ended = waitpid(-1, &status, WNOHANG)) > 0)
		for (int p = 0; p < processes; p++) {
			if (pids[p] != ended)
				continue;
			pids[p] = 0;
			if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) {
				++*kills;
				pids[p] = start(p, next_random(seed));
			} else if (!WIFEXITED(status) || WEXITSTATUS(status))
				fail("process %d ended with status 0x%x", p, (unsigned)status);
		}
	for (int p = 0; p < processes; p++)
		running += pids[p] > 0;
	return running;
}

int main(int argc, char **argv)
{
	long cycles = argc > 1 ? atol(argv[1]) : 20000;
	int processes = argc > 2 ? atoi(argv[2]) : 8, kills = 0, before;
	unsigned seed = argc > 3 && atoi(argv[3]) ? (unsigned)atoi(argv[3]) : 1;
	pid_t pids[MOST] = { 0 };

	must(cycles > 0 && processes > 0 && processes <= MOST);
	device = luo_open();
	before = count_fds();
	left = mmap(NULL, sizeof(long) * MOST, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	must(left != MAP_FAILED);
	for (int p = 0; p < processes; p++) {
		left[p] = cycles / processes + (p < cycles % processes);
		pids[p] = start(p, seed);
	}
	while (reap(pids, processes, &seed, &kills)) {
		struct timespec pause = { 0, 1000000 + (long)(next_random(&seed) % 20000000) };
		int victim = (int)(next_random(&seed) % (unsigned)processes);

		nanosleep(&pause, NULL);
		if (pids[victim] > 0)
			kill(pids[victim], SIGKILL);
	}
	check_free(processes);
	if (count_fds() != before)
		fail("%d descriptors, %d before", count_fds(), before);
	dprintf(1, "  %ld cycles, %d processes, %d killed\n", cycles, processes, kills);
	pass();
}
