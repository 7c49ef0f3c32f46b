//! The table that is printed: what, bedrail, control, ratio, aim.

use std::time::Instant;

use crate::world::ROUNDS;

const HEAD: [&str; 5] = ["what", "bedrail", "control", "ratio", "aim"];

#[derive(Default)]
pub struct Table {
    rows: Vec<[String; 5]>,
}

/// Medians of what two sides showed in the same rounds; `ratio` is the median of the rounds' ratios.
#[derive(Clone, Copy, Debug)]
pub struct Beside {
    pub bedrail: f64,
    pub control: f64,
    pub ratio: f64,
}

impl Table {
    pub fn new() -> Self {
        Self::default()
    }

    /// A row; it is also said at once on standard error, because the whole takes minutes.
    pub fn row(&mut self, what: &str, bedrail: String, control: String, ratio: Option<f64>, aim: &str) {
        let ratio = ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
        eprintln!("{what}: {bedrail} | {control} | {ratio} | {aim}");
        self.rows.push([what.to_owned(), bedrail, control, ratio, aim.to_owned()]);
    }

    /// As Markdown, so that it can be kept as evidence as it stands.
    pub fn print(&self) {
        let head = HEAD.map(str::to_owned);
        let width =
            |column: usize| self.rows.iter().chain([&head]).map(|row| row[column].chars().count()).max().unwrap_or_default();
        let widths: [usize; 5] = std::array::from_fn(width);
        let line = |row: &[String; 5]| {
            let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            println!("| {} |", cells.join(" | "));
        };
        println!();
        line(&head);
        line(&widths.map(|width| "-".repeat(width)));
        self.rows.iter().for_each(line);
    }
}

/// What `N` sides showed, round by round.
pub struct Rounds<const N: usize>(Vec<[f64; N]>);

impl<const N: usize> Rounds<N> {
    pub fn of(&self, side: usize) -> f64 {
        median(self.0.iter().map(|round| round[side]).collect())
    }

    /// The median of the rounds' ratios.
    pub fn ratio(&self, side: usize, to: usize) -> f64 {
        median(self.0.iter().map(|round| round[side] / round[to]).collect())
    }
}

/// Measures side after side, and another one first in each round, so that a machine that slows down slows all of them.
pub fn rounds<const N: usize>(mut measure: impl FnMut(usize) -> f64) -> Rounds<N> {
    let round = |round: usize| {
        let mut values = [0.0; N];
        for place in 0..N {
            let side = (round + place) % N;
            values[side] = measure(side);
        }
        values
    };
    Rounds((0..ROUNDS).map(round).collect())
}

/// What two sides took: the slowest of a hundred, round by round, and the middle one.
pub struct Tails {
    pub p99: Rounds<2>,
    pub p50: [f64; 2],
}

/// `times` gives what each of a round took, in order of size.
pub fn tails(mut times: impl FnMut(usize) -> Vec<f64>) -> Tails {
    let mut p50 = [const { Vec::new() }; 2];
    let p99 = rounds(|side| {
        let times = times(side);
        let of = |per_cent: usize| times[times.len() * per_cent / 100];
        p50[side].push(of(50));
        of(99)
    });
    Tails { p99, p50: p50.map(median) }
}

/// Two sides, bedrail's and its control's.
pub fn alternate(mut bedrail: impl FnMut() -> f64, mut control: impl FnMut() -> f64) -> Beside {
    let rounds: Rounds<2> = rounds(|side| if side == 0 { bedrail() } else { control() });
    Beside { bedrail: rounds.of(0), control: rounds.of(1), ratio: rounds.ratio(0, 1) }
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Seconds that `work` takes.
pub fn seconds(work: impl FnOnce()) -> f64 {
    let started = Instant::now();
    work();
    started.elapsed().as_secs_f64()
}

/// 12345.6 as `12 346`: read across a column, digits in groups compare at a glance.
pub fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}
