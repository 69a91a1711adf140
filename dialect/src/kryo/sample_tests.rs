//! Random values of every type of the table, and the text by which two readers agree on what a value is. The Java side
//! of the text is `Serve.java` in `tests/peers/kryo`.

use super::fields::*;
use super::table::{UnitProgress, UnitStatus};
use std::collections::BTreeSet;
use std::fmt::Write;

/// A source of values: SplitMix64.
pub(crate) struct Random {
    state: u64,
    /// Whether a map or a set with several entries was made: Java writes those in an order of its own.
    pub(crate) unordered: bool,
}

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Random { state: seed, unordered: false }
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    pub(crate) fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    /// Mostly a few, seldom many.
    fn count(&mut self) -> usize {
        match self.below(40) {
            0..12 => 0,
            12..30 => 1,
            30..37 => 2,
            37..39 => 3 + self.below(5),
            _ => 20,
        }
    }
}

/// What the tests do with every type of the table.
pub(crate) trait Sample {
    /// Any value of it.
    fn sample(random: &mut Random) -> Self;
    /// The text of the value.
    fn shown(&self, out: &mut String);
}

impl Sample for String {
    fn sample(random: &mut Random) -> Self {
        const PIECES: [&str; 14] = [
            "shop-6d4-abc",
            "10.1.0.4",
            "arn:aws:ecs:eu-west-1:1:task/c/0123456789abcdef",
            "a",
            "\0",
            "\0b",
            "é",
            "aé",
            "世",
            "🙂",
            "line of text 0123456789\n",
            "{\"ok\":true,\"grüße\":\"世界 🙂\"}",
            "\u{7f}\u{80}",
            "\u{7ff}\u{800}\u{ffff}",
        ];
        match random.below(24) {
            0..2 => String::new(),
            2..18 => random.one_of(&PIECES).to_owned(),
            18..21 => format!("{}{}", random.one_of(&PIECES), random.one_of(&PIECES)),
            21 => random.one_of(&PIECES).repeat(1 + random.below(8)),
            // Around the borders of raw texts and of chunks.
            22 => "x".repeat(random.one_of(&[62, 63, 64, 65, 1022, 1023, 1024, 1025])),
            _ => random.one_of(&PIECES).repeat(1 + random.below(120)),
        }
    }

    fn shown(&self, out: &mut String) {
        write!(out, "s{}:{self};", self.encode_utf16().count()).unwrap();
    }
}

impl Sample for bool {
    fn sample(random: &mut Random) -> Self {
        random.below(2) == 1
    }

    fn shown(&self, out: &mut String) {
        out.push_str(if *self { "t;" } else { "f;" });
    }
}

macro_rules! number {
    ($($number:ty),*) => {$(
        impl Sample for $number {
            fn sample(random: &mut Random) -> Self {
                match random.below(8) {
                    0 => 0,
                    1 => <$number>::MIN,
                    2 => <$number>::MAX,
                    3..6 => (random.below(600) as $number) - 300,
                    _ => (random.next() as $number) >> random.below(<$number>::BITS as usize),
                }
            }

            fn shown(&self, out: &mut String) {
                write!(out, "i{self};").unwrap();
            }
        }
    )*};
}

number!(i32, i64);

impl<T: Sample> Sample for Option<T> {
    fn sample(random: &mut Random) -> Self {
        (random.below(4) > 0).then(|| T::sample(random))
    }

    fn shown(&self, out: &mut String) {
        match self {
            Some(value) => value.shown(out),
            None => out.push_str("-;"),
        }
    }
}

impl<T> Sample for Never<T> {
    fn sample(_: &mut Random) -> Self {
        Never::default()
    }

    fn shown(&self, out: &mut String) {
        out.push_str("-;");
    }
}

impl Sample for Bytes {
    fn sample(random: &mut Random) -> Self {
        let count = random.one_of(&[0, 1, 5, 200, 1300]);
        Bytes((0..count).map(|_| random.next() as u8).collect())
    }

    fn shown(&self, out: &mut String) {
        write!(out, "b{};", hex::encode(&self.0)).unwrap();
    }
}

fn shown<T: Sample>(value: &T) -> String {
    let mut out = String::new();
    value.shown(&mut out);
    out
}

/// The order of Java's texts.
fn sort(texts: &mut [String]) {
    texts.sort_by(|a, b| a.encode_utf16().cmp(b.encode_utf16()));
}

impl<T: Sample> Sample for Vec<T> {
    fn sample(random: &mut Random) -> Self {
        (0..random.count()).map(|_| T::sample(random)).collect()
    }

    fn shown(&self, out: &mut String) {
        write!(out, "L{}[", self.len()).unwrap();
        self.iter().for_each(|one| one.shown(out));
        out.push(']');
    }
}

impl<T: Sample> Sample for Set<T> {
    fn sample(random: &mut Random) -> Self {
        let all = Vec::sample(random);
        random.unordered |= all.len() > 1;
        Set(all)
    }

    fn shown(&self, out: &mut String) {
        let mut all: Vec<String> = self.0.iter().map(shown).collect();
        sort(&mut all);
        write!(out, "S{}[{}]", all.len(), all.concat()).unwrap();
    }
}

impl Sample for Texts {
    fn sample(random: &mut Random) -> Self {
        let all: Texts =
            (0..random.count()).map(|_| (String::sample(random), String::sample(random))).collect();
        random.unordered |= all.len() > 1;
        all
    }

    fn shown(&self, out: &mut String) {
        let mut all: Vec<String> = self.iter().map(|(key, value)| shown(key) + &shown(value)).collect();
        sort(&mut all);
        write!(out, "M{}[{}]", all.len(), all.concat()).unwrap();
    }
}

impl<E: Name + Sample + Ord> Sample for EnumSet<E> {
    fn sample(random: &mut Random) -> Self {
        let all: BTreeSet<E> = (0..random.count()).map(|_| E::sample(random)).collect();
        EnumSet(all.into_iter().collect())
    }

    fn shown(&self, out: &mut String) {
        write!(out, "E{}{}[", E::CLASS.name, self.0.len()).unwrap();
        self.0.iter().for_each(|one| one.shown(out));
        out.push(']');
    }
}

impl Sample for UnitProgress {
    fn sample(random: &mut Random) -> Self {
        use UnitStatus::{Failure, Queued, Running, Skipped, Success};
        UnitProgress {
            unit_name: String::sample(random),
            status: random.one_of(&[Success, Failure, Running, Queued, Skipped]),
            start_time: random.one_of(&[0, 1, 1_733_740_000_000, u64::MAX]),
            end_time: random.next() >> random.below(64),
        }
    }

    fn shown(&self, out: &mut String) {
        write!(out, "UnitProgress(UnitProgress.message=b{};)", hex::encode(self.message())).unwrap();
    }
}
