//! A framework's table of arguments, with an index made when the plugin is compiled.
//!
//! Each call runs in a fresh instance, so an index made at run time would be made for each call.

use crate::Argument;
use crate::known::KnownOptions;

/// Places of the index: a power of two, and few of them taken, so that a search is one step.
const PLACES: usize = 1024;
/// Most arguments of a table.
const MOST: usize = 250;
/// A place that is not taken.
const FREE: u8 = u8::MAX;

/// The arguments of a framework, found by any of their names.
#[derive(Debug)]
pub struct Table {
    arguments: &'static [Argument],
    /// By the hash of a name, the argument's number; the next places where that one is taken.
    places: [u8; PLACES],
    /// The arguments' numbers in the order of their canonical names.
    order: [u8; MOST],
    options: KnownOptions,
}

impl Table {
    /// Makes the index. The build fails where there are too many arguments or names.
    pub const fn new(arguments: &'static [Argument]) -> Self {
        assert!(arguments.len() <= MOST, "too many arguments");
        let mut table = Self {
            arguments,
            places: [FREE; PLACES],
            order: [FREE; MOST],
            options: KnownOptions(""),
        };
        let mut names = 0;
        let mut number = 0;
        while number < arguments.len() {
            let argument = &arguments[number];
            table.enter(argument.name, number);
            let mut alias = 0;
            while alias < argument.aliases.len() {
                table.enter(argument.aliases[alias], number);
                alias += 1;
            }
            table.insert_in_order(number);
            names += 1 + alias;
            number += 1;
        }
        assert!(names <= PLACES / 2, "too many names");
        table
    }

    /// Adds the options that the framework itself has beside these arguments: they are forwarded
    /// with their types checked, and never taken for a slip of another name.
    ///
    /// `list` has a line for each, `name type`. The types are `integer`, `number`, `boolean`,
    /// `text`, `list`, `object` and `any`, several of them joined by `|`. A third word, `unread`,
    /// says that `train.py` does not pass the option on. Lines that begin with `#` are comments.
    pub const fn with_options(mut self, list: &'static str) -> Self {
        self.options = KnownOptions(list);
        self
    }

    const fn enter(&mut self, name: &str, number: usize) {
        let mut place = hash(name) % PLACES;
        while self.places[place] != FREE {
            place = (place + 1) % PLACES;
        }
        self.places[place] = number as u8;
    }

    const fn insert_in_order(&mut self, number: usize) {
        let mut at = number;
        while at > 0 {
            let before = self.order[at - 1];
            let name = self.arguments[before as usize].name;
            if is_before(name, self.arguments[number].name) {
                break;
            }
            self.order[at] = before;
            at -= 1;
        }
        self.order[at] = number as u8;
    }

    pub fn arguments(&self) -> &'static [Argument] {
        self.arguments
    }

    pub(crate) fn options(&self) -> KnownOptions {
        self.options
    }

    /// The number of the argument that a key of `extra_args`, with `-` already made `_`, means.
    pub(crate) fn find(&self, key: &str) -> Option<usize> {
        self.find_hashed(hash(key), key)
    }

    /// The same, where the caller has the hash: the compiler makes that of a constant name.
    pub(crate) fn find_hashed(&self, hash: usize, key: &str) -> Option<usize> {
        let mut place = hash % PLACES;
        loop {
            let number = usize::from(*self.places.get(place)?);
            if self.arguments.get(number)?.is_called(key) {
                return Some(number);
            }
            place = (place + 1) % PLACES;
        }
    }

    /// The arguments with their numbers, in the order of their canonical names.
    pub(crate) fn sorted(&self) -> impl Iterator<Item = (usize, &'static Argument)> {
        let numbers = self.order[..self.arguments.len()].iter();
        numbers.filter_map(|number| {
            let number = usize::from(*number);
            Some((number, self.arguments.get(number)?))
        })
    }
}

/// FNV-1a, folded so that its low bits depend on all of it.
#[inline(always)]
pub(crate) const fn hash(name: &str) -> usize {
    let bytes = name.as_bytes();
    let mut hash: u32 = 0x811c_9dc5;
    let mut at = 0;
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u32).wrapping_mul(0x0100_0193);
        at += 1;
    }
    (hash ^ (hash >> 16)) as usize
}

/// Whether a string comes before another one in byte order.
const fn is_before(left: &str, right: &str) -> bool {
    let (left, right) = (left.as_bytes(), right.as_bytes());
    let mut at = 0;
    while at < left.len() && at < right.len() {
        if left[at] != right[at] {
            return left[at] < right[at];
        }
        at += 1;
    }
    left.len() < right.len()
}
