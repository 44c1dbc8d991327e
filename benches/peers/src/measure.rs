//! Runs the same work on both sides and prints what each costs.
//!
//! Three measures, none of which is an absolute time (that would say more about the machine than about the code):
//!
//! - **time ratio**: the sides run alternately in rounds of about the same length; each round gives one ratio, and the
//!   median of the rounds counts.
//! - **instructions** per operation: the program runs itself once under `valgrind --tool=callgrind`, which collects inside
//!   of [`counted_region`] only and writes one count each time that function returns. Repeatable to a few per mille.
//! - **allocations** per operation (calls of `alloc`, `alloc_zeroed` and `realloc`), from a counting global allocator.
//!
//! All of them are of a warm side: each closure ran before, so that buffers that are kept between operations are there.
//! A peer may offer several forms of one operation; each measure takes its best one.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// One side of a case: does the operation once. What it returns is only there so that nothing is optimised away; by
/// convention a checksum that both sides share (see [`Case::agree`]).
type Work<'a> = Box<dyn FnMut() -> u64 + 'a>;

/// An operation, ours and theirs.
pub struct Case<'a> {
    name: String,
    ours: Work<'a>,
    theirs: Vec<(&'static str, Work<'a>)>,
    agree: bool,
}

impl<'a> Case<'a> {
    /// A case with our side of it.
    pub fn new(name: impl Into<String>, ours: impl FnMut() -> u64 + 'a) -> Self {
        Self { name: name.into(), ours: Box::new(ours), theirs: vec![], agree: false }
    }

    /// Adds a form of their side.
    pub fn theirs(mut self, form: &'static str, work: impl FnMut() -> u64 + 'a) -> Self {
        self.theirs.push((form, Box::new(work)));
        self
    }

    /// All sides must return the same number, which is checked before anything is measured.
    pub fn agree(mut self) -> Self {
        self.agree = true;
        self
    }

    fn check(&mut self) {
        let ours = (self.ours)();
        for (form, theirs) in &mut self.theirs {
            let theirs = theirs();
            assert!(!self.agree || ours == theirs, "{}: ours {ours}, {form} {theirs}", self.name);
        }
    }
}

/// Whether [`run`] would measure any of these cases: for tables whose cases take long to set up.
pub fn wanted(title: &str, names: impl IntoIterator<Item = &'static str>) -> bool {
    let filter = std::env::args().nth(1).unwrap_or_default();
    let counted = std::env::var_os(COUNTING).is_none_or(|counted| counted == title);
    counted && names.into_iter().any(|name| name.contains(&filter))
}

/// Measures the cases, and prints a table of them. Cases whose name does not contain the first argument of the program
/// are left out.
pub fn run(title: &str, cases: Vec<Case<'_>>) {
    let filter = std::env::args().nth(1).unwrap_or_default();
    let mut cases: Vec<_> = cases.into_iter().filter(|case| case.name.contains(&filter)).collect();
    cases.iter_mut().for_each(Case::check);
    if std::env::var_os(COUNTING).as_deref() == Some(title.as_ref()) {
        return run_counted(&mut cases);
    }
    if std::env::var_os(COUNTING).is_some() || cases.is_empty() {
        return;
    }
    let instructions = instructions(title, &filter, &cases);
    println!("\n## {title}\n");
    println!("| operation | time | instructions | ours | theirs | allocations: ours | theirs |");
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    for (case, counts) in cases.iter_mut().zip(instructions) {
        let Case { name, ours, theirs, .. } = case;
        let time = theirs.iter_mut().map(|(_, theirs)| time_ratio(ours, theirs)).fold(f64::INFINITY, f64::min);
        let allocations = theirs.iter_mut().map(|(_, theirs)| allocations(theirs)).fold(f64::INFINITY, f64::min);
        let (ratio, own, peer) = match &counts[..] {
            [own, peers @ ..] if !peers.is_empty() => {
                let peer = peers.iter().copied().fold(f64::INFINITY, f64::min);
                (format!("{:.2} ×", peer / own), format!("{own:.0}"), format!("{peer:.0}"))
            }
            _ => ("-".into(), "-".into(), "-".into()),
        };
        println!("| {name} | {time:.2} × | {ratio} | {own} | {peer} | {} | {allocations} |", self::allocations(ours));
    }
}

/// Median of the ratios (theirs to ours) of interleaved rounds.
fn time_ratio(ours: &mut Work<'_>, theirs: &mut Work<'_>) -> f64 {
    let time = |work: &mut Work<'_>, times: u32| {
        let start = Instant::now();
        for _ in 0..times {
            black_box(work());
        }
        start.elapsed()
    };
    // As many operations as fill a round, from runs that double until they are long enough to tell.
    let calibrate = |work: &mut Work<'_>| {
        let mut times = 1u32;
        loop {
            let elapsed = time(work, times);
            if elapsed > ROUND / 4 {
                return (f64::from(times) * ROUND.as_secs_f64() / elapsed.as_secs_f64()) as u32 + 1;
            }
            times *= 2;
        }
    };
    let (our_times, their_times) = (calibrate(ours), calibrate(theirs));
    let mut ratios: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let own = time(ours, our_times).as_secs_f64() / f64::from(our_times);
            let peer = time(theirs, their_times).as_secs_f64() / f64::from(their_times);
            peer / own
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    ratios[ratios.len() / 2]
}

/// Allocations of one operation.
fn allocations(work: &mut Work<'_>) -> f64 {
    work();
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for _ in 0..REPEAT {
        black_box(work());
    }
    (ALLOCATIONS.load(Ordering::Relaxed) - before) as f64 / f64::from(REPEAT)
}

/// Instructions of one operation by case: ours, and each form of theirs. Empty where they could not be counted.
fn instructions(title: &str, filter: &str, cases: &[Case<'_>]) -> Vec<Vec<f64>> {
    let none = vec![vec![]; cases.len()];
    let folder = std::env::temp_dir().join(format!("wamd-peers-{}", std::process::id()));
    if let Err(error) = std::fs::create_dir_all(&folder) {
        eprintln!("instructions are not counted: {}: {error}", folder.display());
        return none;
    }
    let counted = count_in(&folder, title, filter);
    let _ = std::fs::remove_dir_all(&folder);
    match counted {
        Err(reason) => {
            eprintln!("instructions are not counted: {reason}");
            none
        }
        Ok(counts) => {
            // The first count is of doing nothing.
            let mut counts = counts.into_iter();
            let empty = counts.next().unwrap_or_default();
            let mut next = || counts.next().map(|count| (count - empty) / f64::from(REPEAT));
            cases.iter().map(|case| (0..=case.theirs.len()).map_while(|_| next()).collect()).collect()
        }
    }
}

fn count_in(folder: &Path, title: &str, filter: &str) -> Result<Vec<f64>, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no", "--callgrind-out-file=counts"])
        .args(["--toggle-collect", "--dump-after"].map(|option| format!("{option}={}", COUNTED)))
        .arg(program)
        .arg(filter)
        .env(COUNTING, title)
        .current_dir(folder)
        .output()
        .map_err(|error| format!("valgrind: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    // counts.1, counts.2 and so on, in the order of the calls.
    let read = |number: u32| std::fs::read_to_string(folder.join(format!("counts.{number}"))).ok();
    let total = |profile: String| {
        let line = profile.lines().find_map(|line| line.strip_prefix("totals:").map(str::to_owned));
        line.and_then(|total| total.trim().parse().ok())
    };
    (1..).map_while(read).map(|profile| total(profile).ok_or_else(|| "a profile without total".to_owned())).collect()
}

/// What runs under callgrind: one call of [`counted_region`] for nothing, and one for each side of each case.
fn run_counted(cases: &mut [Case<'_>]) {
    counted_region(&mut (Box::new(|| 0u64) as Work<'_>));
    for case in cases {
        counted_region(&mut case.ours);
        for (_, theirs) in &mut case.theirs {
            counted_region(theirs);
        }
    }
}

/// Callgrind finds it by its name, [`COUNTED`].
#[inline(never)]
fn counted_region(work: &mut Work<'_>) {
    for _ in 0..REPEAT {
        black_box(work());
    }
}

/// What an operation takes, made ahead in chunks, so that making it is not in its time, but for one chunk in many.
pub struct Queue<T, F> {
    chunk: usize,
    make: F,
    made: std::vec::IntoIter<T>,
}

impl<T, F: FnMut() -> T> Queue<T, F> {
    /// `chunk` should be more than a case takes in all of its rounds.
    pub fn new(chunk: usize, make: F) -> Self {
        Self { chunk, make, made: Vec::new().into_iter() }
    }

    pub fn next(&mut self) -> T {
        if let Some(next) = self.made.next() {
            return next;
        }
        // The check and one count.
        let count = if std::env::var_os(COUNTING).is_some() { REPEAT as usize + 1 } else { self.chunk };
        self.made = (0..count).map(|_| (self.make)()).collect::<Vec<_>>().into_iter();
        self.made.next().expect("a chunk is not empty")
    }
}

/// Counts what the program asks the system's allocator for.
struct Counting;

// SAFETY: everything is handed to `System` as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

/// Set in the run under callgrind; the value is the title of the table to count.
const COUNTING: &str = "WAMD_PEERS_COUNT";
/// Path of [`counted_region`].
const COUNTED: &str = concat!(module_path!(), "::counted_region");
/// Operations per count.
const REPEAT: u32 = 16;
/// Interleaved rounds per case, an odd number.
const ROUNDS: usize = 301;
/// Length of one side of a round.
const ROUND: Duration = Duration::from_micros(250);
