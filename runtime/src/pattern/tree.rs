//! What patterns ask for of one event: the asked fields' values, and the objects and arrays on the way to them.

use super::condition::Scalar;
use super::number::Number;

/// A field that patterns ask for, by the names on the way to it. The root of the event is field 0.
pub(super) type FieldId = u32;

/// Where an item stands in the tree.
pub(super) type ItemId = u32;

/// No item.
pub(super) const NONE: ItemId = ItemId::MAX;

/// The event itself is the first item.
pub(super) const ROOT: ItemId = 0;

#[derive(Clone, Copy, Debug)]
pub(super) struct Item {
    /// An element of an array has the field of the array.
    pub(super) field: FieldId,
    pub(super) parent: ItemId,
    /// The next member of the same object, or element of the same array.
    pub(super) next: ItemId,
    pub(super) value: Value,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Value {
    Null,
    Bool(bool),
    /// Where in `numbers`.
    Number(u32),
    /// Where in `text`: start and end.
    String(u32, u32),
    /// The first member that is asked for.
    Object(ItemId),
    /// The first element.
    Array(ItemId),
    /// Nothing that is asked for, or replaced by a later member of the same name.
    Dead,
}

/// What the tree knows of a field, valid when `epoch` is the tree's.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    epoch: u64,
    /// The last member with this field.
    item: ItemId,
    /// How many scalars the field has.
    scalars: u32,
}

/// Reused from event to event, so that matching hardly allocates.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) items: Vec<Item>,
    pub(super) text: String,
    numbers: Vec<Number>,
    slots: Vec<Slot>,
    epoch: u64,
}

impl Tree {
    /// Starts over, for a matcher that knows this many fields.
    pub(super) fn clear(&mut self, field_count: usize) {
        self.items.clear();
        self.text.clear();
        self.numbers.clear();
        if self.slots.len() < field_count {
            self.slots.resize(field_count, Slot::default());
        }
        self.epoch += 1;
        self.items.push(Item { field: 0, parent: NONE, next: NONE, value: Value::Object(NONE) });
    }

    pub(super) fn item(&self, id: ItemId) -> Option<&Item> {
        self.items.get(id as usize)
    }

    /// Adds an item to its parent, after `previous`. Not yet a scalar that counts: see `count`.
    pub(super) fn push(&mut self, field: FieldId, parent: ItemId, previous: ItemId, value: Value) -> ItemId {
        let id = self.items.len() as ItemId;
        self.items.push(Item { field, parent, next: NONE, value });
        match self.items.get_mut(previous as usize) {
            Some(previous) => previous.next = id,
            None => {
                if let Some(Item { value: Value::Object(first) | Value::Array(first), .. }) =
                    self.items.get_mut(parent as usize)
                {
                    *first = id;
                }
            }
        }
        id
    }

    pub(super) fn push_number(&mut self, number: Number) -> Value {
        self.numbers.push(number);
        Value::Number(self.numbers.len() as u32 - 1)
    }

    /// Text from `start` to the end of what there is of it.
    pub(super) fn push_text(&mut self, start: usize) -> Value {
        Value::String(start as u32, self.text.len() as u32)
    }

    /// Notes that `item` is a member of its parent. An earlier member of the same name no longer counts, with all
    /// that is in it. Objects with the same fields are elements of arrays and never inside one another, so that an
    /// earlier member of this object can only be the last one seen.
    pub(super) fn member(&mut self, item: ItemId) {
        let Some(&Item { field, parent, .. }) = self.item(item) else { return };
        let epoch = self.epoch;
        let Some(slot) = self.slots.get_mut(field as usize) else { return };
        let earlier = if slot.epoch == epoch { slot.item } else { NONE };
        *slot = Slot { epoch, item, scalars: 0 };
        if self.item(earlier).is_some_and(|earlier| earlier.parent == parent) {
            self.kill(earlier);
        }
    }

    fn kill(&mut self, root: ItemId) {
        let mut stack = vec![root];
        while let Some(id) = stack.pop() {
            let Some(item) = self.items.get_mut(id as usize) else { continue };
            let value = std::mem::replace(&mut item.value, Value::Dead);
            if let Value::Object(first) | Value::Array(first) = value {
                let mut child = first;
                while let Some(item) = self.item(child) {
                    stack.push(child);
                    child = item.next;
                }
            }
        }
    }

    /// Goes through every scalar once the tree is complete, and counts it for `has_scalar`.
    pub(super) fn count_scalars(&mut self, mut each: impl FnMut(FieldId, Scalar<'_>)) {
        let mut slots = std::mem::take(&mut self.slots);
        for (field, scalar) in self.scalars() {
            if let Some(slot) = slots.get_mut(field as usize) {
                slot.scalars += 1;
            }
            each(field, scalar);
        }
        self.slots = slots;
    }

    /// Every scalar that counts, in the order of the text.
    pub(super) fn scalars(&self) -> impl Iterator<Item = (FieldId, Scalar<'_>)> {
        self.items.iter().filter_map(|item| Some((item.field, self.scalar(item)?)))
    }

    /// Whether the event has a scalar of this field.
    pub(super) fn has_scalar(&self, field: FieldId) -> bool {
        self.slots.get(field as usize).is_some_and(|slot| slot.epoch == self.epoch && slot.scalars > 0)
    }

    /// The member of an object with this field.
    pub(super) fn child(&self, object: ItemId, field: FieldId) -> Option<ItemId> {
        let slot = self.slots.get(field as usize).filter(|slot| slot.epoch == self.epoch)?;
        if self.item(slot.item)?.parent == object {
            return Some(slot.item);
        }
        // The field is in several objects, elements of an array.
        self.children(object).filter(|(_, item)| item.field == field).map(|(id, _)| id).last()
    }

    /// The members of an object or the elements of an array.
    pub(super) fn children(&self, of: ItemId) -> impl Iterator<Item = (ItemId, &Item)> {
        let mut next = match self.item(of).map(|item| item.value) {
            Some(Value::Object(first) | Value::Array(first)) => first,
            _ => NONE,
        };
        std::iter::from_fn(move || {
            let (id, item) = (next, self.item(next)?);
            next = item.next;
            Some((id, item))
        })
    }

    /// What an item is, when it is a scalar.
    pub(super) fn scalar(&self, item: &Item) -> Option<Scalar<'_>> {
        Some(match item.value {
            Value::Null => Scalar::Null,
            Value::Bool(flag) => Scalar::Bool(flag),
            Value::Number(at) => Scalar::Number(*self.numbers.get(at as usize)?),
            Value::String(start, end) => Scalar::String(self.text.get(start as usize..end as usize)?),
            Value::Object(_) | Value::Array(_) | Value::Dead => return None,
        })
    }
}
