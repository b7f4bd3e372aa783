/*
 * kexec [1|2] [-k]: how a program loads an image, sees that, and jumps.
 *
 * Stage 1: nothing loaded: /sys/kernel/kexec_loaded is 0 and reboot(KEXEC) is EINVAL, wrong magic too; after
 * kexec_file_load with a command line it is 1; unloading gives 0 again; at last an image is loaded and with -k the
 * program jumps (without -k it ends, the image stays loaded). Before, an unsuccessful reboot must have left the
 * session as it was. Stage 2: /proc/cmdline is the loaded text, nothing is loaded, the session is back.
 */
#include "luo.h"

const char *const test_name = "kexec";

#define CMDLINE "console=ttyS0 kho=on liveupdate=on luo_stage=2 luo_test=kexec"

static void read_text(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		fail("open %s: errno %d", path, errno);
	n = read(fd, text, size - 1);
	must(n >= 0);
	text[n] = 0;
	while (n > 0 && text[n - 1] == '\n')
		text[--n] = 0;
	close(fd);
}

static void check_loaded(const char *wanted)
{
	char text[16];

	read_text("/sys/kernel/kexec_loaded", text, sizeof text);
	if (strcmp(text, wanted))
		fail("kexec_loaded is \"%s\", want %s", text, wanted);
}

static long unload(void)
{
	return syscall(SYS_kexec_file_load, -1, -1, 0UL, NULL, 1UL);
}

static void first(void)
{
	int device = luo_open(), session, memory = luo_memfd("over the kexec", 4096);
	char before[4096], after[4096];

	session = luo_create(device, "kexec");
	must(session >= 0);
	must(luo_preserve(session, memory, 1) == 0);
	read_text("/proc/cmdline", before, sizeof before);
	check_loaded("0");
	must_fail(luo_kexec(), EINVAL);
	must_fail(syscall(SYS_reboot, 1, 2, LINUX_REBOOT_CMD_KEXEC, NULL), EINVAL);
	/* A failed jump changes nothing. */
	must_fail(luo_create(device, "kexec"), EEXIST);
	must_fail(luo_preserve(session, memory, 1), EEXIST);
	must_fail(syscall(SYS_kexec_file_load, -1, -1, 1UL, "", 4UL), EBADF);
	must(luo_load_image("to be unloaded") == 0);
	check_loaded("1");
	must(unload() == 0);
	check_loaded("0");
	must_fail(luo_kexec(), EINVAL);
	must(luo_load_image(CMDLINE) == 0);
	check_loaded("1");
	read_text("/proc/cmdline", after, sizeof after);
	must(!strcmp(before, after));
	close(device);
}

static void second(void)
{
	int device = luo_open(), session, memory;
	char text[4096];

	read_text("/proc/cmdline", text, sizeof text);
	if (strcmp(text, CMDLINE))
		fail("/proc/cmdline is \"%.300s\"", text);
	check_loaded("0");
	must_fail(luo_kexec(), EINVAL);
	session = luo_take(device, "kexec");
	must(session >= 0);
	memory = luo_retrieve(session, 1);
	must(memory >= 0);
	luo_check_text(memory, "over the kexec", 0);
	must(luo_finish(session) == 0);
}

int main(int argc, char **argv)
{
	if (luo_stage(argc, argv) != 1) {
		second();
		pass();
	}
	first();
	if (luo_has(argc, argv, "-k")) {
		luo_kexec();
		fail("reboot(KEXEC) returned, errno %d", errno);
	}
	luo_custodian();
	pass();
}
