//! Whether an event matches one pattern: each part of the pattern looks at each value of its field once at most, so
//! the work is bounded by the size of the pattern times that of the event.

use super::condition::Condition;
use super::index::{Asked, Fields};
use super::tree::{FieldId, Item, ItemId, ROOT, Tree, Value};
use super::{Group, Test};

/// A group of a pattern in terms of a matcher's fields. It is small and made in one go, so that its parts are
/// neighbours in memory: of many patterns, those that are candidates are rarely in a cache.
#[derive(Debug)]
pub(super) struct Resolved {
    fields: Box<[(FieldId, ResolvedTest)]>,
    /// Each `$or`.
    ors: Box<[Box<[Resolved]>]>,
}

#[derive(Debug)]
enum ResolvedTest {
    Value(Box<[Condition]>),
    Group(Box<Resolved>),
}

impl Resolved {
    /// Finds or adds the matcher's field for each field of a group; notes them in `ids` by ordinal.
    pub(super) fn new(group: &Group, parent: FieldId, fields: &mut Fields, ids: &mut [FieldId]) -> Self {
        let mut tests = Vec::with_capacity(group.fields.len());
        for field in &group.fields {
            let inside = matches!(field.test, Test::Group(_));
            let id = fields.add_child(parent, &field.name, Asked { value: !inside, inside });
            if let Some(place) = ids.get_mut(field.ordinal as usize) {
                *place = id;
            }
            let test = match &field.test {
                Test::Group(group) => ResolvedTest::Group(Box::new(Self::new(group, id, fields, ids))),
                Test::Value(conditions) => ResolvedTest::Value(conditions.clone()),
            };
            tests.push((id, test));
        }
        let mut any_of =
            |groups: &Vec<Group>| groups.iter().map(|group| Self::new(group, parent, fields, ids)).collect();
        Self { ors: group.ors.iter().map(&mut any_of).collect(), fields: tests.into() }
    }

    pub(super) fn matches(&self, tree: &Tree) -> bool {
        self.object(tree, Some(ROOT))
    }

    /// Whether the group matches within one object; without one, it is met by what is absent alone.
    fn object(&self, tree: &Tree, object: Option<ItemId>) -> bool {
        let field = |(field, test): &(FieldId, ResolvedTest)| {
            let member = object.and_then(|object| tree.child(object, *field));
            match test {
                ResolvedTest::Group(group) => group.inside(tree, member),
                ResolvedTest::Value(conditions) => {
                    member
                        .and_then(|member| tree.item(member))
                        .is_some_and(|item| value(conditions, tree, member, item))
                        || !tree.has_scalar(*field) && conditions.contains(&Condition::Absent)
                }
            }
        };
        self.fields.iter().all(field)
            && self.ors.iter().all(|groups| groups.iter().any(|group| group.object(tree, object)))
    }

    /// Whether the group matches in a value: in the object it is, or in one that is an element of the array it is.
    fn inside(&self, tree: &Tree, member: Option<ItemId>) -> bool {
        match member.and_then(|member| tree.item(member)).map(|item| item.value) {
            Some(Value::Object(_)) => self.object(tree, member),
            Some(Value::Array(_)) => {
                let mut elements = member.into_iter().flat_map(|member| tree.children(member));
                elements.any(|(element, _)| self.inside(tree, Some(element))) || self.object(tree, None)
            }
            _ => self.object(tree, None),
        }
    }
}

/// Whether one of the conditions holds for a scalar, or for one in an array.
fn value(conditions: &[Condition], tree: &Tree, member: Option<ItemId>, item: &Item) -> bool {
    match (tree.scalar(item), item.value) {
        (Some(scalar), _) => conditions.iter().any(|condition| condition.holds(scalar)),
        (None, Value::Array(_)) => {
            let mut elements = member.into_iter().flat_map(|member| tree.children(member));
            elements.any(|(element, item)| value(conditions, tree, Some(element), item))
        }
        (None, _) => false,
    }
}
