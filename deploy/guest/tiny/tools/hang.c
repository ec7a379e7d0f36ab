// hang: arms the machine's watchdog (the TCO timer of the ICH9) and never resets it, as a guest that hangs.
// Debian's cloud kernel has no driver for it, so its registers are written here.
#include "tools.h"
#include <fcntl.h>
#include <stdint.h>
#include <sys/io.h>
#include <sys/mman.h>
#include <unistd.h>

#define RCBA_PAGE 0xfed1f000
#define GCS 0x410 // general control and status, of which bit 5 is "no reboot"
#define TCO_RLD 0x660 // a write (re)starts the timer: twice 4 ticks of 0.6 s

int hang_main(int argc, char **argv) {
    (void)argv;
    if (argc != 1)
        die("usage: hang");
    int mem = open("/dev/mem", O_RDWR | O_SYNC);
    if (mem < 0)
        die("/dev/mem can't be opened");
    volatile uint8_t *page = mmap(0, 0x1000, PROT_READ | PROT_WRITE, MAP_SHARED, mem, RCBA_PAGE);
    if (page == MAP_FAILED)
        die("the chipset's registers can't be mapped");
    volatile uint32_t *gcs = (volatile uint32_t *)(page + GCS);
    *gcs &= ~(1u << 5);
    if (iopl(3))
        die("I/O ports can't be written");
    outw(1, TCO_RLD);
    say("the watchdog is armed");
    return 0;
}
