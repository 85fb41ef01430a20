//! The rows of bench/crdt.c for the Rust set: ns of CPU time per operation. bench-crdt --peer runs it in turns with ours.
use datacake_crdt::{HLCTimestamp, OrSWotSet};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

struct Counting;
static HELD: AtomicUsize = AtomicUsize::new(0);

unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size(), Ordering::Relaxed);
        System.alloc(layout)
    }
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        System.dealloc(block, layout)
    }
}

#[global_allocator]
static ALLOC: Counting = Counting;

fn cpu_ns() -> f64 {
    let mut at = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut at) };
    at.tv_sec as f64 * 1e9 + at.tv_nsec as f64
}

/// The clock of the crate reads the system's wall clock; here time is made up, 200 writes per fraction of 4 ms.
struct Stamps {
    count: u64,
    skip: Duration,
}

impl Stamps {
    fn next(&mut self) -> HLCTimestamp {
        self.count += 1;
        let at = Duration::from_secs(30_000_000) + self.skip + Duration::from_millis(self.count / 200 * 4);
        HLCTimestamp::new(at, (self.count % 200) as u16, 0)
    }
}

/// ENTRIES order|random: one round, a line per row: its name and its value in the unit of bench/crdt.c.
fn main() {
    let mut args = std::env::args().skip(1);
    let count: u64 = args.next().and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    let is_random = args.next().as_deref() == Some("random");
    let mut keys: Vec<u64> = (0..count).collect();
    let mut state = 1u64;
    for i in (1..count as usize).rev() {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        if is_random {
            keys.swap(i, ((state >> 33) % (i as u64 + 1)) as usize);
        }
    }
    let names = ["insert", "update", "get", "delete", "purge", "bytes", "diff_10", "diff_10k", "merge_10"];
    let units = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1e3, 1e3, 1e6];
    for ((name, value), unit) in names.iter().zip(one_round(&keys)).zip(units) {
        println!("{name} {}", value / unit);
    }
}

fn one_round(keys: &[u64]) -> Vec<f64> {
    let count = keys.len() as f64;
    let mut stamps = Stamps { count: 0, skip: Duration::ZERO };
    let before = HELD.load(Ordering::Relaxed);
    let mut set = OrSWotSet::<1>::default();
    let mut began = cpu_ns();
    for key in keys {
        set.insert(*key, stamps.next());
    }
    let insert = (cpu_ns() - began) / count;
    let bytes = (HELD.load(Ordering::Relaxed) - before) as f64 / count;
    began = cpu_ns();
    let found = keys.iter().filter(|key| set.get(key).is_some()).count();
    let get = (cpu_ns() - began) / found as f64;
    let mut other = set.clone();
    let time = |other: &OrSWotSet<1>, set: &OrSWotSet<1>, expected: usize| {
        let began = cpu_ns();
        let (changes, removals) = other.diff(set);
        assert_eq!(changes.len() + removals.len(), expected);
        cpu_ns() - began
    };
    for key in &keys[..10] {
        set.insert(*key, stamps.next());
    }
    let diff_10 = time(&other, &set, 10);
    let source = set.clone();
    began = cpu_ns();
    other.merge(source);
    let merge_10 = cpu_ns() - began;
    for key in &keys[..10_000] {
        set.insert(*key, stamps.next());
    }
    let diff_10k = time(&other, &set, 10_000);
    began = cpu_ns();
    for key in keys {
        set.insert(*key, stamps.next());
    }
    let update = (cpu_ns() - began) / count;
    began = cpu_ns();
    for key in keys {
        set.delete(*key, stamps.next());
    }
    let delete = (cpu_ns() - began) / count;
    stamps.skip = Duration::from_secs(7200);
    set.insert(keys[0], stamps.next());
    began = cpu_ns();
    let purged = set.purge_old_deletes().len();
    let purge = (cpu_ns() - began) / purged.max(1) as f64;
    vec![insert, update, get, delete, purge, bytes, diff_10, diff_10k, merge_10]
}
