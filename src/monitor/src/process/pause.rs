//! The infra container's program: a few instructions in an ELF file that fits in a page.
//!
//! It names itself and sleeps for ever. It reaps nobody, because it does not have to: `SIGCHLD` is ignored when it starts, so the
//! kernel reaps orphans that become its children. Process 1 of a pid namespace gets no signal it has no handler for from
//! inside, and elsewhere signals end it as they should.

use nix::sys::personality::{self, Persona};

/// `prctl(PR_SET_NAME, name)`, then `pause()` for ever. The name follows the code.
#[cfg(target_arch = "x86_64")]
const CODE: [u8; 28] = [
    0xb8, 0x9d, 0x00, 0x00, 0x00, // mov eax, 157 (prctl)
    0xbf, 0x0f, 0x00, 0x00, 0x00, // mov edi, 15 (PR_SET_NAME)
    0x48, 0x8d, 0x35, 0x0b, 0x00, 0x00, 0x00, // lea rsi, [rip + 11] (name)
    0x0f, 0x05, // syscall
    0xb8, 0x22, 0x00, 0x00, 0x00, // again: mov eax, 34 (pause)
    0x0f, 0x05, // syscall
    0xeb, 0xf7, // jmp again
];

/// The same; there is no `pause` on this machine, so `ppoll` of nothing for ever.
#[cfg(target_arch = "aarch64")]
const CODE: [u8; 48] = {
    let instructions: [u32; 12] = [
        0xd280_14e8, // mov x8, 167 (prctl)
        0xd280_01e0, // mov x0, 15 (PR_SET_NAME)
        0x1000_0141, // adr x1, 40 (name)
        0xd400_0001, // svc 0
        0xd280_0928, // again: mov x8, 73 (ppoll)
        0xd280_0000, // mov x0, 0
        0xd280_0001, // mov x1, 0
        0xd280_0002, // mov x2, 0
        0xd280_0003, // mov x3, 0
        0xd280_0004, // mov x4, 0
        0xd400_0001, // svc 0
        0x17ff_fff9, // b again
    ];
    let (mut bytes, mut i) = ([0; 48], 0);
    while i < bytes.len() {
        bytes[i] = instructions[i / 4].to_le_bytes()[i % 4];
        i += 1;
    }
    bytes
};

const NAME: &[u8] = b"crisp-infra\0";
const BASE: u64 = 0x40_0000;
const FILE_HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
const ENTRY: usize = FILE_HEADER + 2 * PROGRAM_HEADER;
#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = 62;
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = 183;

/// The file: an ELF header, a segment with everything in it (read and execute), a stack that is not executable.
pub(super) fn program() -> Vec<u8> {
    let length = (ENTRY + CODE.len() + NAME.len()) as u64;
    let mut file = Vec::with_capacity(length as usize);
    file.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0"); // 64 bits, little-endian, System V
    for half in [2u16, MACHINE] {
        file.extend(half.to_le_bytes()); // an executable, for this machine
    }
    file.extend(1u32.to_le_bytes());
    for long in [BASE + ENTRY as u64, FILE_HEADER as u64, 0] {
        file.extend(long.to_le_bytes()); // entry, program headers, no sections
    }
    file.extend(0u32.to_le_bytes());
    for half in [FILE_HEADER as u16, PROGRAM_HEADER as u16, 2, 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    // PT_LOAD and PT_GNU_STACK: kind, flags; offset, addresses, sizes, alignment.
    for (kind, flags, rest) in
        [(1u32, 5u32, [0, BASE, BASE, length, length, 0x1_0000]), (0x6474_e551, 6, [0, 0, 0, 0, 0, 16])]
    {
        file.extend(kind.to_le_bytes());
        file.extend(flags.to_le_bytes());
        for long in rest {
            file.extend(u64::to_le_bytes(long));
        }
    }
    file.extend(CODE);
    file.extend(NAME);
    file
}

/// To be called right before the program is executed. A stack that begins at a random place lies on three pages now and then, where
/// one is enough; there is nothing in this program that an address could help to find.
pub(super) fn settle_addresses() {
    // A kernel that refuses costs a page.
    let _ = personality::set(Persona::ADDR_NO_RANDOMIZE);
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::{fd::AsRawFd, unix::process::ExitStatusExt},
        process::Command,
    };

    use super::*;

    #[test]
    fn it_runs_names_itself_and_takes_two_pages() {
        let file = crisp_host::process::sealed_program(c"infra", &program()).unwrap();
        let program = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        // For another machine's instructions; it runs in the emulator's process.
        let emulator = std::env::var_os("CRISP_EMULATOR");
        let mut command = match &emulator {
            // What `settle_addresses` does.
            None => {
                let mut setarch = Command::new("setarch");
                setarch.arg("-R");
                setarch
            }
            Some(emulator) => Command::new(emulator),
        };
        // The environment would be pages of its stack.
        let mut child = command.arg(program).env_clear().spawn().unwrap();
        let status = || fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let named = (0..1000).any(|_| {
            std::thread::yield_now();
            std::thread::sleep(std::time::Duration::from_millis(1));
            status().starts_with("Name:\tcrisp-infra\n")
        });
        let status = status();
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        assert!(named, "{status}");
        if emulator.is_some() {
            return;
        }
        let rss: u32 = status
            .lines()
            .find_map(|l| l.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok())
            .unwrap();
        assert!(rss < 16, "{rss} KiB resident");
    }
}
