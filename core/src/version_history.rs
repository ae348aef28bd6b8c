//! Version histories (R300–R318): per branch the list of (last event id, version), strictly increasing in both columns. Two
//! regions find the common ancestor of their branches from these lists alone, without reading an event. Equal lists with
//! different content (a restored store, W27) are told apart by chain values, in `conflict`.

use std::{cmp::Ordering, fmt, sync::Arc};

use antipode_proto::core as wire;

use crate::ids::{EventId, FailoverVersion};

/// One item: events after the previous item's up to and including `event` have `version` (R300).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Item {
    /// Last event of the span.
    pub event: EventId,
    /// Version of the span.
    pub version: FailoverVersion,
}

impl Item {
    /// The item of event `event` under `version`.
    #[must_use]
    pub const fn new(event: EventId, version: FailoverVersion) -> Self {
        Self { event, version }
    }

    /// Before the first event; never stored in a list (R301).
    const START: Self = Self::new(EventId(0), FailoverVersion(0));
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.event.0, self.version)
    }
}

/// A list broke R300 or R303.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("version history items must strictly increase in event id and version: {next} after {last}")]
pub struct NotIncreasing {
    /// Item before.
    pub last: Item,
    /// Item that does not fit.
    pub next: Item,
}

/// Two branches of one run without a joint point (R307).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the version histories have no joint point")]
pub struct NoJointPoint;

/// An event that a branch does not have (R306, R310).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the branch does not contain event {0}")]
pub struct NotContained(pub Item);

/// The items of one branch. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct VersionHistory(Arc<[Item]>);

impl VersionHistory {
    /// The list of these items.
    ///
    /// # Errors
    /// [`NotIncreasing`] when an item does not exceed the one before in both columns, or the first is no event (R300, R301).
    pub fn new(items: impl Into<Arc<[Item]>>) -> Result<Self, NotIncreasing> {
        let items = items.into();
        let mut last = Item::START;
        for (index, &next) in items.iter().enumerate() {
            // The first version may be 0: the run began in a local namespace (R101).
            let version_fits =
                if index == 0 { next.version >= last.version } else { next.version > last.version };
            if next.event <= last.event || !version_fits {
                return Err(NotIncreasing { last, next });
            }
            last = next;
        }
        Ok(Self(items))
    }

    /// From the wire form.
    ///
    /// # Errors
    /// [`NotIncreasing`] as [`VersionHistory::new`].
    pub fn from_wire(items: &[wire::VersionItem]) -> Result<Self, NotIncreasing> {
        let item =
            |item: &wire::VersionItem| Item::new(EventId(item.event_id), FailoverVersion(item.version));
        Self::new(items.iter().map(item).collect::<Arc<[Item]>>())
    }

    /// Wire form.
    #[must_use]
    pub fn to_wire(&self) -> Vec<wire::VersionItem> {
        let item = |item: &Item| wire::VersionItem { event_id: item.event.0, version: item.version.0 };
        self.0.iter().map(item).collect()
    }

    /// The items, oldest first.
    #[must_use]
    pub fn items(&self) -> &[Item] {
        &self.0
    }

    /// Last event and its version.
    #[must_use]
    pub fn last(&self) -> Option<Item> {
        self.0.last().copied()
    }

    /// No event yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The list after one more event, or batch that ends with it: the last item grows when versions are equal, else a new one
    /// follows (R303).
    ///
    /// # Errors
    /// [`NotIncreasing`] when the event id does not grow or the version falls.
    pub fn with(&self, next: Item) -> Result<Self, NotIncreasing> {
        let last = self.last().unwrap_or(Item::START);
        if next.event <= last.event || next.version < last.version {
            return Err(NotIncreasing { last, next });
        }
        let same_version = !self.is_empty() && next.version == last.version;
        let kept = self.0.len() - usize::from(same_version);
        Ok(Self(self.0[..kept].iter().copied().chain([next]).collect()))
    }

    /// Is this the list `before` after one more event or batch ([`VersionHistory::with`])?
    #[must_use]
    pub fn is_after(&self, before: &Self, next: Item) -> bool {
        let last = before.last().unwrap_or(Item::START);
        if next.event <= last.event || next.version < last.version {
            return false;
        }
        let same_version = !before.is_empty() && next.version == last.version;
        let kept = before.0.len() - usize::from(same_version);
        self.0.split_last().is_some_and(|(tip, earlier)| *tip == next && *earlier == before.0[..kept])
    }

    /// Has the branch an event with this id and version (R305)?
    #[must_use]
    pub fn contains(&self, event: EventId, version: FailoverVersion) -> bool {
        self.version_of(event) == Some(version)
    }

    /// Version of an event of the branch; none before the first and after the last (R306).
    #[must_use]
    pub fn version_of(&self, event: EventId) -> Option<FailoverVersion> {
        if event.0 < 1 {
            return None;
        }
        let index = self.0.partition_point(|item| item.event < event);
        self.0.get(index).map(|item| item.version)
    }

    /// Last event that both branches share, as far as lists can tell (R307).
    ///
    /// # Errors
    /// [`NoJointPoint`] when no version is in both.
    pub fn common_ancestor(&self, other: &Self) -> Result<Item, NoJointPoint> {
        let (mut left, mut right) = (self.0.iter().rev(), other.0.iter().rev());
        let (mut a, mut b) = (left.next(), right.next());
        while let (Some(x), Some(y)) = (a, b) {
            match x.version.cmp(&y.version) {
                Ordering::Equal => return Ok(Item::new(x.event.min(y.event), x.version)),
                Ordering::Greater => a = left.next(),
                Ordering::Less => b = right.next(),
            }
        }
        Err(NoJointPoint)
    }

    /// The branch with the largest common ancestor, and that ancestor; ties: fewer items, then the first (R308).
    ///
    /// # Errors
    /// [`NoJointPoint`] when no branch shares an event with this one.
    pub fn best_common_ancestor<'a>(
        &self,
        branches: impl IntoIterator<Item = &'a Self>,
    ) -> Result<(Item, usize), NoJointPoint> {
        let mut best: Option<(Item, usize, usize)> = None;
        for (index, branch) in branches.into_iter().enumerate() {
            let Ok(item) = self.common_ancestor(branch) else { continue };
            let length = branch.0.len();
            let better = best.is_none_or(|(found, shortest, _)| {
                item.event > found.event || (item.event == found.event && length < shortest)
            });
            if better {
                best = Some((item, length, index));
            }
        }
        best.map(|(item, _, index)| (item, index)).ok_or(NoJointPoint)
    }

    /// May a branch whose common ancestor with this one is `ancestor` be appended to it (R309)?
    #[must_use]
    pub fn appendable(&self, ancestor: Item) -> bool {
        self.last() == Some(ancestor)
    }

    /// The list up to and including an event of it (R310).
    ///
    /// # Errors
    /// [`NotContained`] when the branch does not have that event.
    pub fn copy_until(&self, item: Item) -> Result<Self, NotContained> {
        if !self.contains(item.event, item.version) {
            return Err(NotContained(item));
        }
        let index = self.0.partition_point(|known| known.event < item.event);
        Ok(Self(self.0[..index].iter().copied().chain([item]).collect()))
    }

    /// Which branch is newer: last version, then last event id (R311). Not total where one owner forked; `tree` adds the
    /// chain value (G2).
    #[must_use]
    pub fn compare(&self, other: &Self) -> Ordering {
        let key = |list: &Self| list.last().map(|item| (item.version, item.event));
        key(self).cmp(&key(other))
    }

    /// Is one list a prefix of the other (R312)?
    #[must_use]
    pub fn same_branch(&self, other: &Self) -> bool {
        self.common_ancestor(other)
            .is_ok_and(|ancestor| self.appendable(ancestor) || other.appendable(ancestor))
    }

    /// The part of the list that `own` wrote into: up to the last item whose version satisfies it (R314).
    #[must_use]
    pub fn local_prefix(&self, own: impl Fn(FailoverVersion) -> bool) -> &[Item] {
        let end = self.0.iter().rposition(|item| own(item.version)).map_or(0, |index| index + 1);
        &self.0[..end]
    }
}

impl fmt::Display for VersionHistory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        let mut first = 1;
        for (index, item) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            if first == item.event.0 {
                write!(f, "{item}")?;
            } else {
                write!(f, "{first}..{item}")?;
            }
            first = item.event.0 + 1;
        }
        f.write_str("]")
    }
}

impl fmt::Debug for VersionHistory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
#[path = "version_history_tests.rs"]
mod tests;
