//! What AWS' requests hold: names and types of their members.

use std::collections::BTreeMap;
use std::sync::LazyLock;

/// Type of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Text,
    Whole,
    Number,
    Flag,
    List(Box<Type>),
    Table(Box<Type>),
    Object(&'static str),
    Any,
}

/// One member of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) name: &'static str,
    pub(super) kind: Type,
    pub(super) required: bool,
}

static OBJECTS: LazyLock<BTreeMap<&'static str, Vec<Member>>> = LazyLock::new(|| {
    let lines = include_str!("members.txt").lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| {
            let (name, members) = line.split_once(':')?;
            Some((name, members.split_whitespace().filter_map(member).collect()))
        })
        .collect()
});

fn member(text: &'static str) -> Option<Member> {
    let (name, kind) = text.split_once('=')?;
    let required = name.ends_with('!');
    Some(Member { name: name.trim_end_matches('!'), kind: read(kind), required })
}

fn read(text: &'static str) -> Type {
    let inner = |open: char, close: char| text.strip_prefix(open).and_then(|rest| rest.strip_suffix(close));
    if let Some(item) = inner('[', ']') {
        return Type::List(Box::new(read(item)));
    }
    if let Some(item) = inner('{', '}') {
        return Type::Table(Box::new(read(item)));
    }
    match text {
        "s" => Type::Text,
        "i" => Type::Whole,
        "f" => Type::Number,
        "b" => Type::Flag,
        // Times stand in no document; in requests they are numbers.
        "t" => Type::Number,
        "*" => Type::Any,
        name => Type::Object(name),
    }
}

/// Members of an object in AWS' own order; none when nobody knows the object.
pub(crate) fn names(object: &str) -> impl Iterator<Item = &'static str> + use<> {
    of(object).iter().map(|member| member.name)
}

pub(super) fn of(object: &str) -> &'static [Member] {
    OBJECTS.get(object).map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects(kind: &Type) -> Option<&'static str> {
        match kind {
            Type::Object(name) => Some(name),
            Type::List(item) | Type::Table(item) => objects(item),
            _ => None,
        }
    }

    #[test]
    fn every_object_that_a_member_names_is_known_and_every_member_was_read() {
        for (name, members) in OBJECTS.iter() {
            assert!(!members.is_empty(), "{name}");
            for member in members {
                if let Some(object) = objects(&member.kind) {
                    assert!(!of(object).is_empty(), "{name}.{}: {object}", member.name);
                }
            }
        }
        let written: usize = include_str!("members.txt")
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split_whitespace().count() - 1)
            .sum();
        assert_eq!(OBJECTS.values().map(Vec::len).sum::<usize>(), written);
        assert!(names("Service").any(|name| name == "vpcLatticeConfigurations"));
        assert!(of("Scaling.Policy").iter().any(|member| member.required && member.name == "PolicyName"));
    }
}
