//! Whether an event matches one pattern: each part of the pattern looks at each value of its field once at most, so
//! the work is bounded by the size of the pattern times that of the event.

use super::condition::Condition;
use super::tree::{FieldId, Item, ItemId, ROOT, Tree, Value};
use super::{Field, Group, Test};

pub(super) struct Verify<'a> {
    pub(super) tree: &'a Tree,
    /// The tree's field for each field of the pattern.
    pub(super) fields: &'a [FieldId],
}

impl Verify<'_> {
    pub(super) fn matches(&self, root: &Group) -> bool {
        self.object(root, Some(ROOT))
    }

    /// Whether a group matches within one object; without one, it is met by what is absent alone.
    fn object(&self, group: &Group, object: Option<ItemId>) -> bool {
        group.fields.iter().all(|field| self.field(field, object))
            && group.ors.iter().all(|groups| groups.iter().any(|group| self.object(group, object)))
    }

    fn field(&self, field: &Field, object: Option<ItemId>) -> bool {
        let Some(&id) = self.fields.get(field.ordinal as usize) else { return false };
        let member = object.and_then(|object| self.tree.child(object, id));
        match &field.test {
            Test::Group(group) => self.group(group, member),
            Test::Value(conditions) => {
                let absent = || !self.tree.has_scalar(id) && conditions.contains(&Condition::Absent);
                member
                    .and_then(|member| self.tree.item(member))
                    .is_some_and(|item| self.value(conditions, member, item))
                    || absent()
            }
        }
    }

    /// Whether a group matches in a value: in the object it is, or in one that is an element of the array it is.
    fn group(&self, group: &Group, member: Option<ItemId>) -> bool {
        match member.and_then(|member| self.tree.item(member)).map(|item| item.value) {
            Some(Value::Object(_)) => self.object(group, member),
            Some(Value::Array(_)) => {
                let mut elements = member.into_iter().flat_map(|member| self.tree.children(member));
                elements.any(|(element, _)| self.group(group, Some(element))) || self.object(group, None)
            }
            _ => self.object(group, None),
        }
    }

    fn value(&self, conditions: &[Condition], member: Option<ItemId>, item: &Item) -> bool {
        match (self.tree.scalar(item), item.value) {
            (Some(scalar), _) => conditions.iter().any(|condition| condition.holds(scalar)),
            (None, Value::Array(_)) => {
                let mut elements = member.into_iter().flat_map(|member| self.tree.children(member));
                elements.any(|(element, item)| self.value(conditions, Some(element), item))
            }
            (None, _) => false,
        }
    }
}
