//! JSON bodies, read strictly: every fault names the member that it lies in.
//!
//! In: bytes. Out: a wire struct, or a refusal with a path such as `targets[2].handle`.
//! serde_json's own errors tell a member's name only in words, so the body is read into a tree that
//! knows duplicates, and the tree is read into the struct under an error type that keeps names.
//! Invariant: no value of the body gets into a refusal, only names.

use std::cell::RefCell;
use std::fmt;

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error as _, Expected, IntoDeserializer,
    MapAccess, SeqAccess, Unexpected, Visitor,
};
use serde::forward_to_deserialize_any;

use crate::outcome::{Code, Refusal};

/// Reads a body.
/// Errors: `json_malformed`, `member_duplicate`, `member_unknown`, `member_missing`,
/// `member_invalid`.
/// Source: RFC 8259; a name twice is refused, as RFC 7493 §2.3 has it.
pub fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    let duplicate = RefCell::new(None);
    let mut json = serde_json::Deserializer::from_slice(body);
    let tree = TreeSeed { duplicate: &duplicate }.deserialize(&mut json);
    if let Some(name) = duplicate.into_inner() {
        return Err(Refusal::of_field(Code::MemberDuplicate, name));
    }
    let tree = tree.map_err(|_| Refusal::new(Code::JsonMalformed))?;
    json.end().map_err(|_| Refusal::new(Code::JsonMalformed))?;
    if !matches!(tree, Tree::Object(_)) {
        return Err(Refusal::new(Code::JsonMalformed));
    }
    T::deserialize(tree).map_err(|fault| fault.0)
}

/// A JSON value whose objects keep their order and hold no name twice.
enum Tree {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(String),
    Array(Vec<Tree>),
    Object(Vec<(String, Tree)>),
}

/// Builds a [`Tree`] and tells of the first name that stands twice.
struct TreeSeed<'a> {
    duplicate: &'a RefCell<Option<String>>,
}

/// A refusal, as serde's error.
#[derive(Debug)]
struct Fault(Refusal);

// === impl Fault ===

impl Fault {
    fn of(code: Code, name: &str) -> Self {
        Self(Refusal::of_field(code, name.to_owned()))
    }

    /// Puts the fault one member or element further down.
    fn within(self, outer: &str) -> Self {
        let field = match self.0.field {
            None => outer.to_owned(),
            Some(inner) if inner.starts_with('[') => format!("{outer}{inner}"),
            Some(inner) => format!("{outer}.{inner}"),
        };
        Self(Refusal::of_field(self.0.code, field))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.code.label())
    }
}

impl std::error::Error for Fault {}

impl serde::de::Error for Fault {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self(Refusal::new(Code::MemberInvalid))
    }

    fn invalid_type(_: Unexpected<'_>, _: &dyn Expected) -> Self {
        Self(Refusal::new(Code::MemberInvalid))
    }

    fn unknown_field(name: &str, _: &'static [&'static str]) -> Self {
        Self::of(Code::MemberUnknown, name)
    }

    fn missing_field(name: &'static str) -> Self {
        Self::of(Code::MemberMissing, name)
    }

    fn duplicate_field(name: &'static str) -> Self {
        Self::of(Code::MemberDuplicate, name)
    }
}

// === impl TreeSeed ===

impl<'de> DeserializeSeed<'de> for TreeSeed<'_> {
    type Value = Tree;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for TreeSeed<'_> {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Unsigned(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Signed(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Tree, E> {
        Ok(Tree::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tree, A::Error> {
        let mut array = Vec::new();
        while let Some(element) = seq.next_element_seed(TreeSeed { duplicate: self.duplicate })? {
            array.push(element);
        }
        Ok(Tree::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut object: Vec<(String, Tree)> = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if object.iter().any(|(known, _)| *known == name) {
                *self.duplicate.borrow_mut() = Some(name);
                return Err(A::Error::custom("duplicate"));
            }
            object.push((name, map.next_value_seed(TreeSeed { duplicate: self.duplicate })?));
            if object.len() > MEMBERS_MAX {
                return Err(A::Error::custom("too many members"));
            }
        }
        Ok(Tree::Object(object))
    }
}

/// Members of one object: bounds the search for duplicates.
const MEMBERS_MAX: usize = 256;

// === impl Tree ===

impl<'de> IntoDeserializer<'de, Fault> for Tree {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Tree {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self {
            Self::Null => visitor.visit_unit(),
            Self::Bool(value) => visitor.visit_bool(value),
            Self::Unsigned(value) => visitor.visit_u64(value),
            Self::Signed(value) => visitor.visit_i64(value),
            Self::Float(value) => visitor.visit_f64(value),
            Self::Text(value) => visitor.visit_string(value),
            Self::Array(array) => visitor.visit_seq(Elements { index: 0, rest: array.into_iter() }),
            Self::Object(object) => {
                visitor.visit_map(Members { value: None, rest: object.into_iter() })
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self {
            Self::Null => visitor.visit_none(),
            value => visitor.visit_some(value),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self {
            Self::Text(text) => {
                let text: serde::de::value::StringDeserializer<Fault> = text.into_deserializer();
                text.deserialize_enum(name, variants, visitor)
            }
            _ => Err(Fault(Refusal::new(Code::MemberInvalid))),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

struct Elements {
    index: usize,
    rest: std::vec::IntoIter<Tree>,
}

impl<'de> SeqAccess<'de> for Elements {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Fault> {
        let Some(element) = self.rest.next() else { return Ok(None) };
        let index = self.index;
        self.index += 1;
        seed.deserialize(element).map(Some).map_err(|fault| fault.within(&format!("[{index}]")))
    }
}

struct Members {
    value: Option<(String, Tree)>,
    rest: std::vec::IntoIter<(String, Tree)>,
}

impl<'de> MapAccess<'de> for Members {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Fault> {
        let Some((name, value)) = self.rest.next() else { return Ok(None) };
        let key = seed.deserialize(Tree::Text(name.clone()))?;
        self.value = Some((name, value));
        Ok(Some(key))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let Some((name, value)) = self.value.take() else {
            return Err(Fault(Refusal::new(Code::JsonMalformed)));
        };
        seed.deserialize(value).map_err(|fault| fault.within(&name))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize, Debug, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        name: String,
        #[serde(default)]
        number: Option<u32>,
        #[serde(default)]
        inner: Vec<Inner>,
        #[serde(default)]
        vars: BTreeMap<String, String>,
        #[serde(default)]
        level: Option<Level>,
    }

    #[derive(Deserialize, Debug, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        handle: String,
    }

    #[derive(Deserialize, Debug, PartialEq)]
    #[serde(rename_all = "lowercase")]
    enum Level {
        Info,
    }

    fn check(body: &str, code: Code, field: Option<&str>) {
        let refusal = read::<Outer>(body.as_bytes()).unwrap_err();
        assert_eq!((refusal.code, refusal.field.as_deref()), (code, field), "{body}");
    }

    #[test]
    fn a_good_body_is_read() {
        let body =
            r#"{"name":"a","number":7,"inner":[{"handle":"h"}],"vars":{"%X%":"y"},"level":"info"}"#;
        let outer: Outer = read(body.as_bytes()).unwrap();
        assert_eq!(outer.inner, [Inner { handle: "h".into() }]);
        assert_eq!(outer.level, Some(Level::Info));
        assert_eq!(read::<Outer>(br#"{"name":"a","number":null}"#).unwrap().number, None);
    }

    #[test]
    fn every_fault_names_its_member() {
        check("", Code::JsonMalformed, None);
        check("[]", Code::JsonMalformed, None);
        check("\"x\"", Code::JsonMalformed, None);
        check(r#"{"name":"a"} x"#, Code::JsonMalformed, None);
        check(r#"{"name":"a""#, Code::JsonMalformed, None);
        check("{}", Code::MemberMissing, Some("name"));
        check(r#"{"name":1}"#, Code::MemberInvalid, Some("name"));
        check(r#"{"name":null}"#, Code::MemberInvalid, Some("name"));
        check(r#"{"name":"a","more":1}"#, Code::MemberUnknown, Some("more"));
        check(r#"{"name":"a","name":"b"}"#, Code::MemberDuplicate, Some("name"));
        check(r#"{"name":"a","number":-1}"#, Code::MemberInvalid, Some("number"));
        check(r#"{"name":"a","number":4294967296}"#, Code::MemberInvalid, Some("number"));
        check(r#"{"name":"a","number":1.5}"#, Code::MemberInvalid, Some("number"));
        check(
            r#"{"name":"a","inner":[{"handle":"h"},{}]}"#,
            Code::MemberMissing,
            Some("inner[1].handle"),
        );
        check(
            r#"{"name":"a","inner":[{"handle":[]}]}"#,
            Code::MemberInvalid,
            Some("inner[0].handle"),
        );
        check(r#"{"name":"a","inner":[3]}"#, Code::MemberInvalid, Some("inner[0]"));
        check(r#"{"name":"a","vars":{"%X%":{}}}"#, Code::MemberInvalid, Some("vars.%X%"));
        check(r#"{"name":"a","level":"loud"}"#, Code::MemberInvalid, Some("level"));
        check(r#"{"name":"a","level":{"info":1}}"#, Code::MemberInvalid, Some("level"));
    }

    #[test]
    fn a_deep_or_wide_body_is_refused_and_does_not_overflow() {
        check(&"[".repeat(100_000), Code::JsonMalformed, None);
        check(&format!(r#"{{"name":{}"#, r#"{"a":"#.repeat(100_000)), Code::JsonMalformed, None);
        let wide: String = (0..300).map(|n| format!(r#""m{n}":0,"#)).collect();
        check(&format!(r#"{{{wide}"name":"a"}}"#), Code::JsonMalformed, None);
    }
}
