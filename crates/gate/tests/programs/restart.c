/*
 * restart [1|2|3]: a restart boots what the boot loader boots, not what a kexec had booted.
 *
 * Stage 1 keeps its command line, loads an image with another one and jumps. Stage 2 has that one, preserves a file and
 * restarts the machine: the third kernel has the first one's command line again, and nothing of the session.
 */
#include "luo.h"

const char *const test_name = "restart";

#define CMDLINE "kho=on liveupdate=on luo_stage=2"

static void check_cmdline(int is_loaded)
{
	char text[4096] = { 0 };
	int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);

	must(fd >= 0);
	must(read(fd, text, sizeof text - 1) > 0);
	close(fd);
	if ((strstr(text, "luo_stage=2") != NULL) != is_loaded)
		fail("/proc/cmdline is \"%.300s\"", text);
}

int main(int argc, char **argv)
{
	int stage = luo_stage(argc, argv), device = luo_open(), session;

	check_cmdline(stage == 2);
	if (stage == 1) {
		must(luo_load_image(CMDLINE) == 0);
		luo_kexec();
		fail("reboot(KEXEC) returned, errno %d", errno);
	}
	if (stage == 2) {
		session = luo_create(device, "restart");
		must(session >= 0);
		must(luo_preserve(session, luo_memfd("lost", 4096), 1) == 0);
		syscall(SYS_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_RESTART, NULL);
		fail("reboot(RESTART) returned, errno %d", errno);
	}
	must_fail(luo_take(device, "restart"), ENOENT);
	pass();
}
