//! How fast a full drop folder is drained, against the floor of the machine.
//!
//! Each round takes the same files of 2 KB and the same lean sink on loopback twice: once for the
//! floor (threads that read, parse, POST on a kept-alive raw socket and rename) and once for
//! `patchdrop run --once` with full durability. The rounds are interleaved, so that a machine that
//! slows down slows both.
//!
//! `cargo bench --bench drain`; `cargo bench --bench drain -- --help` for more.
#![expect(clippy::disallowed_methods, reason = "a bench prepares and measures real files")]
#![expect(clippy::print_stdout, reason = "the figures are for a person")]

mod floor;
mod patchdrop;
mod prepare;
mod sink;

use std::process::ExitCode;
use std::time::Duration;

use patchdrop::Program;
use prepare::DropFolder;
use sink::Sink;

const USAGE: &str = "\
usage: cargo bench --bench drain -- [OPTIONS]
  --files N         files in each round (20000)
  --rounds N        interleaved rounds (5)
  --connections N   connections of the floor and of patchdrop (32)
  --patchdrop PATH  another binary than the one just built
  --floor-only      measure the floor alone
  --enforce         exit 1 below 0.25 of the floor or above 100 fsyncs per 1,000 files";

/// Less than this part of the floor is too slow.
const RATIO_MIN: f64 = 0.25;

/// More fsyncs than this per 1,000 files would be slow on disks where one costs 5-15 ms.
const FSYNCS_MAX: f64 = 100.0;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

struct Options {
    files: usize,
    rounds: usize,
    connections: usize,
    program: Program,
    is_floor_only: bool,
    is_enforced: bool,
}

/// One side of one round.
struct Round {
    took: Duration,
    files: usize,
}

impl Round {
    fn files_per_s(&self) -> f64 {
        count(self.files) / self.took.as_secs_f64()
    }
}

fn main() -> ExitCode {
    let options = match options(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(fault) => {
            eprintln!("error: {fault}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(fault) => {
            eprintln!("error: {fault}");
            ExitCode::FAILURE
        }
    }
}

/// `None` when only the usage was asked for.
fn options(mut words: impl Iterator<Item = String>) -> Outcome<Option<Options>> {
    let mut options = Options {
        files: 20_000,
        rounds: 5,
        connections: 32,
        program: Program::built(),
        is_floor_only: false,
        is_enforced: false,
    };
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} wants a value"));
        match word.as_str() {
            "--files" => options.files = value()?.parse()?,
            "--rounds" => options.rounds = value()?.parse()?,
            "--connections" => options.connections = value()?.parse()?,
            "--patchdrop" => options.program = Program::at(value()?.into()),
            "--floor-only" => options.is_floor_only = true,
            "--enforce" => options.is_enforced = true,
            "--help" => return Ok(None),
            // Cargo says so to every bench.
            "--bench" => {}
            _ => return Err(format!("unknown option {word}").into()),
        }
    }
    if options.files == 0 || options.rounds == 0 || options.connections == 0 {
        return Err("files, rounds and connections begin at 1".into());
    }
    Ok(Some(options))
}

/// Whether what was asked for was reached.
fn run(options: &Options) -> Outcome<bool> {
    let sink = Sink::open()?;
    println!(
        "{} files of 2 KB, {} rounds, {} connections, sink on {}\n",
        options.files,
        options.rounds,
        options.connections,
        sink.address()
    );
    println!("round   floor files/s   patchdrop files/s   net of start   ratio");
    let mut floors = Vec::new();
    let mut drains = Vec::new();
    for number in 1..=options.rounds {
        let floor = floor_round(options, &sink)?;
        print!("{number:>5}   {:>13.0}", floor.files_per_s());
        if !options.is_floor_only {
            let drain = patchdrop::round(&options.program, &sink, options)?;
            print!(
                "   {:>17.0}   {:>12.0}   {:>5.2}",
                drain.whole.files_per_s(),
                drain.net.files_per_s(),
                drain.whole.files_per_s() / floor.files_per_s()
            );
            drains.push(drain);
        }
        println!();
        floors.push(floor);
    }
    if options.is_floor_only {
        println!("\nfloor: {:.0} files/s (median)", median(floors.iter().map(Round::files_per_s)));
        return Ok(true);
    }
    let fsyncs = patchdrop::fsyncs_per_1000(&options.program, &sink, options)?;
    Ok(summary(options, &floors, &drains, fsyncs))
}

fn floor_round(options: &Options, sink: &Sink) -> Outcome<Round> {
    let drop_folder = DropFolder::prepare(options.files)?;
    let before = sink.seen();
    let took = floor::drain(&drop_folder, sink.address(), options.connections)?;
    drop_folder.check_drained()?;
    sink.check_since(before, options.files)?;
    Ok(Round { took, files: options.files })
}

fn summary(
    options: &Options,
    floors: &[Round],
    drains: &[patchdrop::Drain],
    fsyncs: Option<f64>,
) -> bool {
    let floor = median(floors.iter().map(Round::files_per_s));
    let whole = median(drains.iter().map(|drain| drain.whole.files_per_s()));
    let net = median(drains.iter().map(|drain| drain.net.files_per_s()));
    let cpu = median(drains.iter().map(|drain| drain.cpu.as_secs_f64()));
    let memory = drains.iter().filter_map(|drain| drain.memory_peak_bytes).max();
    let ratio = whole / floor;
    println!("\nmedian of {} rounds", options.rounds);
    println!("  floor                   {floor:>8.0} files/s");
    println!("  patchdrop               {whole:>8.0} files/s   ratio {ratio:.2}");
    println!("  net of process start    {net:>8.0} files/s   ratio {:.2}", net / floor);
    println!("  CPU per 1,000 files     {:>8.3} s", cpu * 1000.0 / count(options.files));
    match memory {
        Some(bytes) => println!("  peak resident memory    {:>8.1} MB", mega(bytes)),
        None => println!("  peak resident memory    unknown here"),
    }
    match fsyncs {
        Some(fsyncs) => println!("  fsyncs per 1,000 files  {fsyncs:>8.1}"),
        None => println!("  fsyncs per 1,000 files  not counted (needs strace)"),
    }
    let is_fast = ratio >= RATIO_MIN;
    let is_sparing = fsyncs.is_some_and(|fsyncs| fsyncs <= FSYNCS_MAX);
    if options.is_enforced && !is_fast {
        println!("too slow: the ratio is below {RATIO_MIN}");
    }
    if options.is_enforced && !is_sparing {
        println!("too many fsyncs, or they could not be counted: at most {FSYNCS_MAX:.0}");
    }
    !options.is_enforced || (is_fast && is_sparing)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len().is_multiple_of(2) {
        f64::midpoint(values[middle - 1], values[middle])
    } else {
        values[middle]
    }
}

#[expect(clippy::cast_precision_loss, reason = "numbers of files are far below 2^52")]
fn count(number: usize) -> f64 {
    number as f64
}

#[expect(clippy::cast_precision_loss, reason = "a size for a person")]
fn mega(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
