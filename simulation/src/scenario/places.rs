//! Where things stand in a file: each key and each value with its line and column, in whatever style it is written. What is
//! wrong with a scenario is said with such a place.

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::{Location, Spanned};

/// Line and column, both from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: u64,
    pub(super) column: u64,
}

impl Place {
    pub(super) const BEGIN: Self = Self { line: 1, column: 1 };

    pub(super) fn of(location: Location) -> Self {
        if location.line() == 0 {
            return Self::BEGIN;
        }
        Self { line: location.line(), column: location.column() }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// What is wrong, and where: the keys that lead there, and a word below them when it is not the key itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    path: Vec<String>,
    word: Option<String>,
    why: String,
}

impl Wrong {
    /// With a key, or with the nearest one above it that the file has.
    pub(super) fn key(path: &[&str], why: String) -> Self {
        Self { path: path.iter().map(|key| (*key).to_string()).collect(), word: None, why }
    }

    /// With a word that stands somewhere below a key.
    pub(super) fn word(path: &[&str], word: &str, why: String) -> Self {
        Self { word: Some(word.to_string()), ..Self::key(path, why) }
    }

    /// Seen from further above.
    pub(super) fn below(mut self, keys: &[&str]) -> Self {
        self.path.splice(0..0, keys.iter().map(|key| (*key).to_string()));
        self
    }

    /// With line and column.
    pub(super) fn told(&self, places: &Places) -> String {
        format!("{}: {}", places.find(&self.path, self.word.as_deref()), self.why)
    }
}

/// All places of a file.
pub(super) struct Places(Node);

struct Node {
    /// Of the key, or of the entry of a list.
    key: Place,
    value: Place,
    kind: Kind,
}

enum Kind {
    Map(Vec<(String, Node)>),
    List(Vec<Node>),
    Word(String),
    /// A key without a value.
    Nothing,
}

impl Places {
    /// Of a file; one that is no YAML has none.
    pub(super) fn of(text: &str) -> Self {
        let root = serde_saphyr::from_str::<Spanned<Kind>>(text).ok();
        Self(root.map_or_else(
            || Node { key: Place::BEGIN, value: Place::BEGIN, kind: Kind::List(Vec::new()) },
            |root| Node { key: Place::BEGIN, value: Place::BEGIN, kind: root.value },
        ))
    }

    fn find(&self, path: &[String], word: Option<&str>) -> Place {
        let mut node = &self.0;
        for key in path {
            match node.child(key) {
                Some(child) => node = child,
                None => return node.key,
            }
        }
        word.and_then(|word| node.word(word)).unwrap_or(node.key)
    }

    fn get(&self, path: &[&str]) -> Option<&Node> {
        path.iter().try_fold(&self.0, |node, key| node.child(key))
    }

    /// The word that the file says here.
    pub(super) fn says(&self, path: &[&str]) -> Option<&str> {
        if let Kind::Word(word) = &self.get(path)?.kind { Some(word) } else { None }
    }

    /// Here is a list, and it is empty.
    pub(super) fn lists_nothing(&self, path: &[&str]) -> bool {
        self.get(path).is_some_and(|node| matches!(&node.kind, Kind::List(nodes) if nodes.is_empty()))
    }

    /// A key without a value: it says nothing, and would be taken for one that is not there.
    pub(super) fn unsaid(&self) -> Option<String> {
        let (place, name) = self.0.unsaid()?;
        Some(format!("{place}: `{name}` has no value: expected one, or not to say it"))
    }

    /// The name of what stands at a place: `expect.signals`.
    pub(super) fn name_at(&self, place: Place) -> Option<String> {
        let mut keys = Vec::new();
        self.0.names(place, &mut keys).then(|| keys.join("."))
    }
}

impl Node {
    fn child(&self, key: &str) -> Option<&Self> {
        match &self.kind {
            Kind::Map(fields) => fields.iter().find(|(name, _)| name == key).map(|(_, node)| node),
            Kind::List(nodes) => nodes.get(key.parse::<usize>().ok()?),
            Kind::Word(_) | Kind::Nothing => None,
        }
    }

    /// The first key without a value: its place and its name.
    fn unsaid(&self) -> Option<(Place, &str)> {
        match &self.kind {
            Kind::Map(fields) => fields.iter().find_map(|(name, node)| match node.kind {
                Kind::Nothing => Some((node.key, name.as_str())),
                _ => node.unsaid(),
            }),
            Kind::List(nodes) => nodes.iter().find_map(Self::unsaid),
            Kind::Word(_) | Kind::Nothing => None,
        }
    }

    /// The first place where a word stands, as a value.
    fn word(&self, wanted: &str) -> Option<Place> {
        match &self.kind {
            Kind::Map(fields) => fields.iter().find_map(|(_, node)| node.word(wanted)),
            Kind::List(nodes) => nodes.iter().find_map(|node| node.word(wanted)),
            Kind::Word(word) => (word == wanted).then_some(self.value),
            Kind::Nothing => None,
        }
    }

    fn names(&self, place: Place, keys: &mut Vec<String>) -> bool {
        match &self.kind {
            Kind::Map(fields) => fields.iter().any(|(name, node)| {
                keys.push(name.clone());
                if node.key == place || node.value == place || node.names(place, keys) {
                    return true;
                }
                keys.pop();
                false
            }),
            Kind::List(nodes) => nodes.iter().any(|node| node.value == place || node.names(place, keys)),
            Kind::Word(_) | Kind::Nothing => false,
        }
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Anything)
    }
}

struct Anything;

impl<'de> Visitor<'de> for Anything {
    type Value = Kind;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("anything")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Kind, A::Error> {
        let mut fields = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let value = map.next_value::<Spanned<Kind>>()?;
            let (at, of_value) = (Place::of(key.referenced), Place::of(value.referenced));
            fields.push((key.value, Node { key: at, value: of_value, kind: value.value }));
        }
        Ok(Kind::Map(fields))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Kind, A::Error> {
        let mut nodes = Vec::new();
        while let Some(value) = list.next_element::<Spanned<Kind>>()? {
            let at = Place::of(value.referenced);
            nodes.push(Node { key: at, value: at, kind: value.value });
        }
        Ok(Kind::List(nodes))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Kind, E> {
        Ok(Kind::Word(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Kind, E> {
        Ok(Kind::Word(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Kind, E> {
        Ok(Kind::Word(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Kind, E> {
        Ok(Kind::Word(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Kind, E> {
        Ok(Kind::Word(value.to_string()))
    }

    fn visit_unit<E>(self) -> Result<Kind, E> {
        Ok(Kind::Nothing)
    }

    fn visit_none<E>(self) -> Result<Kind, E> {
        Ok(Kind::Nothing)
    }
}
