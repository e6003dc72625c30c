// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Tells a Raspberry Pi's firmware, before a restart with the word "0 tryboot", to start the other slot of the card once.
 *
 * Raspberry Pi's own kernel does this in its driver of the firmware. The mainline kernel, and so Debian's, has that driver
 * without this part. Six functions are all that is asked of the kernel, so no headers of it are needed: cross/tryboot/build
 * takes what a module of exactly this kernel must look like from the modules that came with it.
 */

struct device_node;
struct rpi_firmware;

/* include/linux/notifier.h */
struct notifier_block {
	int (*notifier_call)(struct notifier_block *block, unsigned long action, void *data);
	struct notifier_block *next;
	int priority;
};

struct device_node *rpi_firmware_find_node(void);
struct rpi_firmware *rpi_firmware_get(struct device_node *node);
int rpi_firmware_property(struct rpi_firmware *firmware, unsigned int tag, void *data, unsigned long bytes);
int register_reboot_notifier(struct notifier_block *block);
int _printk(const char *format, ...);

#define ENODEV 19
#define NOTIFY_DONE 0
#define SYS_RESTART 1
#define WARNING "\001" "4"

/* The mailbox's number for the flags of the next start, and the one that means once. */
#define SET_REBOOT_FLAGS 0x00038064
#define TRYBOOT 1

static struct rpi_firmware *firmware;

static int asks_for_it(const char *word)
{
	static const char wanted[] = " tryboot";
	unsigned long at, same;

	for (at = 0; word[at]; at++) {
		for (same = 0; wanted[same] && word[at + same] == wanted[same]; same++)
			;
		if (!wanted[same])
			return 1;
	}
	return 0;
}

static int before_restart(struct notifier_block *block, unsigned long action, void *word)
{
	unsigned int flags = TRYBOOT;
	int error;

	(void)block;
	if (action != SYS_RESTART || !word || !asks_for_it(word))
		return NOTIFY_DONE;
	error = rpi_firmware_property(firmware, SET_REBOOT_FLAGS, &flags, sizeof(flags));
	if (error)
		_printk(WARNING "tiebreaker_tryboot: the firmware takes no flag: %d\n", error);
	else
		_printk(WARNING "tiebreaker_tryboot: the firmware starts the other slot once\n");
	return NOTIFY_DONE;
}

static struct notifier_block notifier = { .notifier_call = before_restart };

int init_module(void);
int init_module(void)
{
	struct device_node *node = rpi_firmware_find_node();

	if (!node)
		return -ENODEV;
	firmware = rpi_firmware_get(node);
	if (!firmware)
		return -ENODEV;
	return register_reboot_notifier(&notifier);
}

/* What the kernel's own build adds to a module. The sizes and numbers come from cross/tryboot/build. */

#define NAME_BYTES 56

static struct {
	char before[24];
	char name[NAME_BYTES];
	char between[INIT_AT - 24 - NAME_BYTES];
	int (*init)(void);
	char behind[MODULE_BYTES - INIT_AT - 8];
} this_module __attribute__((section(".gnu.linkonce.this_module"), used, aligned(64))) = {
	.name = "tiebreaker_tryboot",
	.init = init_module,
};

static const struct {
	unsigned long crc;
	char name[NAME_BYTES];
} versions[] __attribute__((section("__versions"), used)) = {
	{ CRC_module_layout, "module_layout" },
	{ CRC_rpi_firmware_find_node, "rpi_firmware_find_node" },
	{ CRC_rpi_firmware_get, "rpi_firmware_get" },
	{ CRC_rpi_firmware_property, "rpi_firmware_property" },
	{ CRC_register_reboot_notifier, "register_reboot_notifier" },
	{ CRC__printk, "_printk" },
};

static const char about[] __attribute__((section(".modinfo"), used, aligned(1))) =
	"license=Dual MIT/GPL\0"
	"description=Starts the other slot of the card once, by the Pi's firmware\0"
	"name=tiebreaker_tryboot\0"
	"depends=\0"
	"vermagic=" VERMAGIC;

/* The loader makes its jump tables in sections that must be there, see cross/tryboot/build. */
__asm__(SECTIONS);
