//! The bytes against Kryo's own: vectors that the real Kryo 4.0.3 wrote, and the table against their schema.

use super::*;
use crate::kryo::class::{Class, Declared, FieldInfo};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

fn peer(file: &str) -> Value {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/peers/kryo").join(file);
    serde_json::from_slice(&std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
        .unwrap()
}

/// A class of the schema. The vectors hold more than our answers do: probes for rules, and the profile with references.
enum Shape {
    Enum(Class),
    Record(Class),
}

fn leak(text: &str) -> &'static str {
    Box::leak(text.to_owned().into_boxed_str())
}

fn declared(text: &str) -> Declared {
    match text.split_once(' ') {
        Some(("enum", name)) => Declared::Enum(leak(name)),
        Some(("final", name)) => Declared::Final(leak(name)),
        Some(("open", name)) => Declared::Open(leak(name)),
        _ => Declared::Plain(leak(text)),
    }
}

fn schema(vectors: &Value) -> BTreeMap<String, Shape> {
    let texts = |value: &Value| -> Vec<&'static str> {
        value.as_array().into_iter().flatten().map(|name| leak(name.as_str().unwrap())).collect()
    };
    let mut all = BTreeMap::new();
    for entry in vectors["schema"].as_array().unwrap() {
        let name = leak(entry["class"].as_str().unwrap());
        let id = u32::try_from(entry["id"].as_u64().unwrap()).unwrap();
        let mut fields: Vec<FieldInfo> = Vec::new();
        for field in entry["fields"].as_array().into_iter().flatten() {
            let (name, kind) = (leak(field[0].as_str().unwrap()), declared(field[1].as_str().unwrap()));
            fields.push(FieldInfo { name, declared: kind, optional: true, written: true });
        }
        fields.sort_by_key(|field| field.name);
        let class =
            Class { name, id, last: false, fields: fields.leak(), names: texts(&entry["enum"]).leak() };
        all.insert(
            name.to_owned(),
            if entry["enum"].is_null() { Shape::Record(class) } else { Shape::Enum(class) },
        );
    }
    all
}

/// Writes value trees with the same [`Writer`] as the table does.
struct Tree<'a> {
    schema: &'a BTreeMap<String, Shape>,
    writer: Writer,
    /// The v1 profile: a mark before every object, enums by ordinal.
    references: bool,
    labels: HashMap<String, Value>,
}

impl Tree<'_> {
    fn mark(&mut self) {
        if self.references {
            // The vectors with references share nothing.
            self.writer.byte(1);
        }
    }

    fn jdk(name: &str) -> u32 {
        match name {
            "Integer" => 0,
            "String" => 1,
            "Boolean" => 3,
            "Long" => 7,
            "bytes" => 10,
            "char[]" => 11,
            "String[]" => 18,
            "Date" => 23,
            "EnumSet" => 25,
            "EmptyList" => 29,
            "SingletonList" => 32,
            "ArrayList" => 35,
            "HashMap" => 36,
            "TreeMap" => 39,
            "Optional" => 46,
            "HashSet" => 49,
            "LinkedHashMap" => 50,
            "LinkedList" => 78,
            "Instant" => 7235,
            other => panic!("{other}"),
        }
    }

    fn any(&mut self, value: &Value) {
        let value = match value.get("@same").and_then(Value::as_str) {
            Some(label) => self.labels[label].clone(),
            None => value.clone(),
        };
        match &value {
            Value::Null => self.writer.byte(0),
            Value::String(text) => {
                self.writer.class(1);
                self.mark();
                self.writer.text(text);
            }
            Value::Object(object) => {
                let name = object["@"].as_str().unwrap();
                let id = match self.schema.get(name) {
                    Some(Shape::Enum(class) | Shape::Record(class)) => class.id,
                    None => Self::jdk(name),
                };
                self.writer.class(id);
                if !matches!(name, "Integer" | "Long" | "Boolean") {
                    self.mark();
                }
                self.body(name, object);
            }
            other => panic!("{other}"),
        }
    }

    fn enumeration(&mut self, class: &str, name: &str) {
        let Some(Shape::Enum(class)) = self.schema.get(class) else { panic!("{class}") };
        let ordinal = class.names.iter().position(|known| *known == name).unwrap();
        match self.references {
            true => self.writer.size(ordinal + 1),
            false => self.writer.text(name),
        }
    }

    fn body(&mut self, name: &str, object: &Map<String, Value>) {
        let value = object.get("v").unwrap_or(&Value::Null);
        let list = || value.as_array().unwrap();
        match name {
            "Integer" => self.writer.int(i32::try_from(value.as_i64().unwrap()).unwrap()),
            "Long" => self.writer.long(value.as_i64().unwrap()),
            "Boolean" => self.writer.byte(u8::from(value.as_bool().unwrap())),
            "bytes" => {
                let bytes = hex::decode(value.as_str().unwrap()).unwrap();
                self.writer.size(bytes.len() + 1);
                self.writer.bytes(&bytes);
            }
            "EnumSet" => {
                let of = object["of"].as_str().unwrap();
                let Some(Shape::Enum(class)) = self.schema.get(of) else { panic!("{of}") };
                self.writer.class(class.id);
                self.writer.size(list().len());
                for one in list() {
                    self.enumeration(of, one.as_str().unwrap());
                }
            }
            "ArrayList" | "LinkedList" | "HashSet" => {
                self.writer.size(list().len());
                list().iter().for_each(|one| self.any(one));
            }
            "EmptyList" => {}
            "SingletonList" => self.any(&list()[0]),
            "HashMap" | "LinkedHashMap" => {
                self.writer.size(list().len());
                for pair in list() {
                    self.any(&pair[0]);
                    self.any(&pair[1]);
                }
            }
            "Optional" => self.any(value),
            "Date" => self.writer.varlong(value.as_i64().unwrap() as u64),
            "Instant" => {
                self.writer.varlong(object["s"].as_u64().unwrap());
                self.writer.varint(u32::try_from(object["n"].as_u64().unwrap()).unwrap());
            }
            "UnitProgress" => {
                let message = object.get("UnitProgress.message").or_else(|| object.get("message")).unwrap();
                self.body("bytes", message.as_object().unwrap());
                self.writer.flush();
            }
            _ => match self.schema.get(name) {
                Some(Shape::Enum(_)) => self.enumeration(name, value.as_str().unwrap()),
                Some(Shape::Record(class)) => {
                    let class = *class;
                    if let Some(label) = object.get("#").and_then(Value::as_str) {
                        self.labels.insert(label.to_owned(), Value::Object(object.clone()));
                    }
                    self.writer.open(&class);
                    for field in class.fields {
                        let short = field.name.split_once('.').unwrap().1;
                        let value =
                            object.get(field.name).or_else(|| object.get(short)).unwrap_or(&Value::Null);
                        self.field(field.declared, value);
                        self.writer.end_field();
                    }
                    self.writer.close();
                }
                None => panic!("{name}"),
            },
        }
    }

    fn field(&mut self, declared: Declared, value: &Value) {
        let int = || value.as_i64().unwrap_or(0);
        match declared {
            Declared::Plain("boolean") => self.writer.byte(u8::from(value.as_bool().unwrap_or(false))),
            Declared::Plain("byte") => self.writer.fixed(&i8::try_from(int()).unwrap().to_be_bytes()),
            Declared::Plain("short") => self.writer.fixed(&i16::try_from(int()).unwrap().to_be_bytes()),
            Declared::Plain("int") => self.writer.int(i32::try_from(int()).unwrap()),
            Declared::Plain("long") => self.writer.long(int()),
            Declared::Plain("float") => {
                self.writer.fixed(&(value.as_f64().unwrap_or(0.0) as f32).to_be_bytes())
            }
            Declared::Plain("double") => self.writer.fixed(&value.as_f64().unwrap_or(0.0).to_be_bytes()),
            Declared::Plain("char") => {
                let unit = value.as_str().and_then(|text| text.encode_utf16().next()).unwrap_or(0);
                self.writer.fixed(&unit.to_be_bytes());
            }
            Declared::Plain("Integer" | "Long" | "Boolean") => match value {
                Value::Null => self.writer.byte(0),
                value => {
                    self.writer.byte(1);
                    let Declared::Plain(name) = declared else { unreachable!() };
                    self.body(name, &Map::from_iter([("v".to_owned(), value.clone())]));
                }
            },
            Declared::Plain("String") => match value.as_str() {
                None if self.references => self.writer.byte(0),
                None => self.writer.null_text(),
                Some(text) => {
                    self.mark();
                    self.writer.text(text);
                }
            },
            Declared::Plain(_) if value.is_null() => self.writer.byte(0),
            Declared::Plain("byte[]") => {
                self.mark();
                self.body("bytes", value.as_object().unwrap());
            }
            Declared::Plain("char[]") => {
                self.mark();
                let units: Vec<u16> = value.as_str().unwrap().encode_utf16().collect();
                self.writer.size(units.len() + 1);
                units.iter().for_each(|unit| self.writer.fixed(&unit.to_be_bytes()));
            }
            Declared::Plain("String[]") => {
                self.mark();
                let all = value["v"].as_array().unwrap();
                self.writer.size(all.len() + 1);
                for one in all {
                    match one.as_str() {
                        Some(text) => self.writer.text(text),
                        None => self.writer.null_text(),
                    }
                }
            }
            Declared::Plain(other) => panic!("{other}"),
            Declared::Enum(_) | Declared::Final(_) if value.is_null() => self.writer.byte(0),
            Declared::Enum(name) => {
                self.writer.byte(1);
                self.enumeration(name, value.as_str().unwrap());
            }
            Declared::Final(name) => {
                self.writer.byte(1);
                self.body(name, value.as_object().unwrap());
            }
            Declared::Open(_) => self.any(value),
        }
    }
}

#[test]
fn every_vector_of_the_real_kryo_comes_out_byte_for_byte() {
    let vectors = peer("vectors.json");
    let schema = schema(&vectors);
    let all = vectors["vectors"].as_array().unwrap();
    assert!(all.len() >= 23, "{}", all.len());
    for vector in all {
        let references = vector["profile"] == "v1";
        let mut tree =
            Tree { schema: &schema, writer: Writer::default(), references, labels: HashMap::new() };
        tree.any(&vector["value"]);
        assert_eq!(hex::encode(tree.writer.finish()), vector["hex"].as_str().unwrap(), "{}", vector["name"]);
    }
}

#[test]
fn the_table_is_the_schema_of_the_stub_classes() {
    let schema = schema(&peer("vectors.json"));
    let mut seen = Vec::new();
    for class in table::classes() {
        let Some(Shape::Record(known)) = schema.get(class.name) else { panic!("{} is no stub", class.name) };
        assert_eq!(class.id, known.id, "{}", class.name);
        let names = |fields: &[FieldInfo]| -> Vec<String> {
            fields.iter().map(|field| format!("{}: {}", field.name, field.declared)).collect()
        };
        assert_eq!(names(class.fields), names(known.fields));
        assert!(class.fields.is_sorted_by_key(|field| field.name), "{}", class.name);
        seen.push(class.id);
    }
    for class in document::enums() {
        let Some(Shape::Enum(known)) = schema.get(class.name) else { panic!("{} is no stub", class.name) };
        assert_eq!((class.id, class.names), (known.id, known.names), "{}", class.name);
        seen.push(class.id);
    }
    let count = seen.len();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), count, "an id stands twice");
}

#[test]
fn the_document_is_made_from_the_table() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/harness-answers.md");
    if std::env::var_os("DELEGATE_WRITE_DOCS").is_some() {
        std::fs::write(&path, document()).unwrap();
    }
    assert!(
        std::fs::read_to_string(&path).unwrap_or_default() == document(),
        "docs/harness-answers.md is old: DELEGATE_WRITE_DOCS=1 cargo test -p dialect document"
    );
}
