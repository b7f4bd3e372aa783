// A Go program: goroutines that create, preserve and close while the collector runs and the runtime preempts them by
// signals; in the second stage everything that was kept comes back.
//
// Stage: the argument, else LUOSIM_GENERATION, else 1. Prints one line PASS, FAIL or SKIP; exit codes 0, 1, 77.
package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

const (
	create   = 0xBA00
	retrieve = 0xBA01
	preserve = 0xBA40
	give     = 0xBA41
	finish   = 0xBA42

	workers = 4
	rounds  = 400

	memfdCreate = 319
)

type sessionArg struct {
	size uint32
	fd   int32
	name [64]byte
}

type fdArg struct {
	size  uint32
	fd    int32
	token uint64
}

type finishArg struct {
	size, reserved uint32
}

func fail(format string, values ...interface{}) {
	fmt.Printf("FAIL goagent: "+format+"\n", values...)
	os.Exit(1)
}

func ioctl(fd int, command uintptr, arg unsafe.Pointer) error {
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), command, uintptr(arg))
	if errno != 0 {
		return errno
	}
	return nil
}

func session(device int, command uintptr, name string) (int, error) {
	arg := sessionArg{size: 72, fd: -1}
	copy(arg.name[:], name)
	err := ioctl(device, command, unsafe.Pointer(&arg))
	return int(arg.fd), err
}

func memory(text string) int {
	name, _ := syscall.BytePtrFromString("go")
	fd, _, errno := syscall.Syscall(memfdCreate, uintptr(unsafe.Pointer(name)), 0, 0)
	if errno != 0 {
		fail("memfd_create: %v", errno)
	}
	if _, err := syscall.Pwrite(int(fd), []byte(text), 0); err != nil {
		fail("pwrite: %v", err)
	}
	return int(fd)
}

// One worker: names and tokens of its own, so that every answer is known.
func work(device, worker int) {
	for round := 0; round < rounds; round++ {
		name := fmt.Sprintf("go-%d-%d", worker, round%7)
		s, err := session(device, create, name)
		if err != nil {
			fail("create %s: %v", name, err)
		}
		if _, err := session(device, create, name); err != syscall.EEXIST {
			fail("create %s again: %v", name, err)
		}
		m := memory(name)
		arg := fdArg{16, int32(m), uint64(round)}
		if err := ioctl(s, preserve, unsafe.Pointer(&arg)); err != nil {
			fail("preserve in %s: %v", name, err)
		}
		if err := syscall.Ftruncate(m, 9000); err != syscall.EPERM {
			fail("a frozen file grows: %v", err)
		}
		syscall.Close(s)
		if err := syscall.Ftruncate(m, 9000); err != nil {
			fail("a released file does not grow: %v", err)
		}
		syscall.Close(m)
	}
}

// Keeps the collector busy.
func litter(stop chan bool) {
	for {
		select {
		case <-stop:
			return
		default:
			_ = make([]byte, 1<<16)
			runtime.GC()
			time.Sleep(time.Millisecond)
		}
	}
}

func store(device int) {
	stop := make(chan bool)
	go litter(stop)
	var group sync.WaitGroup
	for worker := 0; worker < workers; worker++ {
		group.Add(1)
		go func(worker int) {
			defer group.Done()
			work(device, worker)
		}(worker)
	}
	group.Wait()
	close(stop)
	s, err := session(device, create, "go-kept")
	if err != nil {
		fail("create go-kept: %v", err)
	}
	m := memory("kept by Go")
	arg := fdArg{16, int32(m), 42}
	if err := ioctl(s, preserve, unsafe.Pointer(&arg)); err != nil {
		fail("preserve: %v", err)
	}
	// A child holds the session until the kexec.
	null, _ := os.Open("/dev/null")
	held := os.NewFile(uintptr(s), "session")
	_, err = os.StartProcess("/bin/sleep", []string{"sleep", "1000"},
		&os.ProcAttr{Files: []*os.File{null, null, null, held}, Sys: &syscall.SysProcAttr{Setsid: true}})
	if err != nil {
		fail("no child: %v", err)
	}
}

func check(device int) {
	s, err := session(device, retrieve, "go-kept")
	if err != nil {
		fail("retrieve go-kept: %v", err)
	}
	arg := fdArg{16, -1, 42}
	if err := ioctl(s, give, unsafe.Pointer(&arg)); err != nil {
		fail("retrieve 42: %v", err)
	}
	text := make([]byte, 32)
	count, err := syscall.Pread(int(arg.fd), text, 0)
	if err != nil || string(text[:count]) != "kept by Go" {
		fail("contents %q: %v", text[:count], err)
	}
	end := finishArg{8, 0}
	if err := ioctl(s, finish, unsafe.Pointer(&end)); err != nil {
		fail("finish: %v", err)
	}
}

func main() {
	stage := 1
	if given, err := strconv.Atoi(os.Getenv("LUOSIM_GENERATION")); err == nil {
		stage = given
	}
	if len(os.Args) > 1 {
		stage, _ = strconv.Atoi(os.Args[1])
	}
	device, err := syscall.Open("/dev/liveupdate", syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	if err == syscall.ENOENT {
		fmt.Println("SKIP goagent: no /dev/liveupdate")
		os.Exit(77)
	}
	if err != nil {
		fail("open: %v", err)
	}
	if stage == 1 {
		store(device)
	} else {
		check(device)
	}
	fmt.Println("PASS goagent")
}
