//! The name of a leg on the relay: it says for whom it stands. Without clock.

use crate::media::frame::RoomTime;

/// Longest name of the leg, characters.
const MOST: usize = 64;
/// Longest part that one member's name takes, characters.
const MOST_EACH: usize = 24;
/// What follows the names; other gateways know legs by it.
pub const SUFFIX: &str = " via web";

/// A leg's name for these members: "Ana, Bo via web".
pub fn alias<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<String> = (names.into_iter())
        .map(|name| {
            let shown: String = name.chars().filter(|c| !c.is_control()).take(MOST_EACH).collect();
            shown.trim().to_owned()
        })
        .collect();
    for shown in (1..=names.len()).rev() {
        let listed = names[..shown].join(", ");
        let rest = match names.len() - shown {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let alias = format!("{listed}{rest}{SUFFIX}");
        if alias.chars().count() <= MOST {
            return alias;
        }
    }
    format!("{} people{SUFFIX}", names.len())
}

/// How seldom a leg takes another name. The protocol has no way to say a new one but to join again.
#[derive(Debug, Clone, Copy)]
pub struct Renaming {
    /// The members must have been the same for this long, µs.
    pub quiet: u64,
    /// Time from one renaming to the next, µs.
    pub apart: u64,
}

impl Default for Renaming {
    fn default() -> Self {
        Self {
            quiet: 3_000_000,
            apart: 20_000_000,
        }
    }
}

/// The name that a leg has, and the one that it should have.
#[derive(Debug)]
pub struct Alias {
    renaming: Renaming,
    shown: String,
    shown_at: RoomTime,
    wanted: String,
    wanted_at: RoomTime,
}

impl Alias {
    /// The leg joins as `name`.
    pub fn new(renaming: Renaming, name: String, now: RoomTime) -> Self {
        Self {
            renaming,
            shown: name.clone(),
            shown_at: now,
            wanted: name,
            wanted_at: now,
        }
    }

    /// What the relay shows.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// What it should show.
    pub fn wanted(&self) -> &str {
        &self.wanted
    }

    /// The leg should be called this.
    pub fn want(&mut self, name: String, now: RoomTime) {
        if self.wanted != name {
            self.wanted = name;
            self.wanted_at = now;
        }
    }

    /// The leg joined as `name`.
    pub fn joined(&mut self, name: String, now: RoomTime) {
        self.shown = name;
        self.shown_at = now;
    }

    /// When to join again under the name that is wanted; `None`: it is the one that is shown.
    pub fn due(&self) -> Option<RoomTime> {
        (self.shown != self.wanted).then(|| {
            let quiet = self.wanted_at.plus(self.renaming.quiet);
            quiet.max(self.shown_at.plus(self.renaming.apart))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_listed_as_far_as_they_fit() {
        assert_eq!(alias(["Ana"]), "Ana via web");
        assert_eq!(alias(["Ana", "Bo"]), "Ana, Bo via web");
        let many = [
            "Annabella",
            "Bartholomew",
            "Christopher",
            "Dominique",
            "Ekaterina",
            "Florentine",
        ];
        assert_eq!(alias(many), "Annabella, Bartholomew, Christopher and 3 more via web");
    }

    #[test]
    fn renaming_waits_until_nobody_comes_or_goes_and_is_rare() {
        let s = |s: u64| RoomTime(s * 1_000_000);
        let mut alias = Alias::new(Renaming::default(), "Ana via web".into(), s(0));
        assert_eq!(alias.due(), None);
        alias.want("Ana, Bo via web".into(), s(30));
        assert_eq!(alias.due(), Some(s(33)));
        alias.want("Ana, Bo, Cy via web".into(), s(32));
        assert_eq!(alias.due(), Some(s(35)));
        alias.joined("Ana, Bo, Cy via web".into(), s(35));
        assert_eq!(alias.due(), None);
        alias.want("Ana via web".into(), s(36));
        assert_eq!(alias.due(), Some(s(55)));
        // Gone and back again: nothing to do.
        alias.want("Ana, Bo, Cy via web".into(), s(37));
        assert_eq!(alias.due(), None);
    }

    proptest! {
        #[test]
        fn alias_is_never_too_long(names in proptest::collection::vec(".{0,80}", 1..200)) {
            let alias = alias(names.iter().map(String::as_str));
            prop_assert!(alias.chars().count() <= MOST);
            prop_assert!(!alias.chars().any(char::is_control));
        }
    }
}
