"""Compares a descriptor set with the published xDS messages: every message, field and value in it must be theirs, with their number and type."""

import importlib
import pathlib
import sys

from google.protobuf import descriptor_pb2, descriptor_pool
import xds

root = pathlib.Path(list(xds.__path__)[0]).parent
ours = descriptor_pb2.FileDescriptorSet.FromString(pathlib.Path(sys.argv[1]).read_bytes())
pool = descriptor_pool.Default()
problems = []
compared = 0


def compare(prefix, message):
    global compared
    name = "%s.%s" % (prefix, message.name)
    published = descriptor_pb2.DescriptorProto()
    pool.FindMessageTypeByName(name).CopyToProto(published)
    theirs = {field.number: field for field in published.field}
    for field in message.field:
        other = theirs.get(field.number, descriptor_pb2.FieldDescriptorProto())
        if (field.name, field.type, field.label, field.type_name) != (other.name, other.type, other.label, other.type_name):
            problems.append("%s: field %d is %s, published is %s" % (name, field.number, field.name, other.name or "none"))
        compared += 1
    for nested in message.nested_type:
        compare(name, nested)
    for enum in message.enum_type:
        compare_enum(name, enum)


def compare_enum(prefix, enum):
    global compared
    name = "%s.%s" % (prefix, enum.name)
    theirs = pool.FindEnumTypeByName(name)
    for value in enum.value:
        if theirs.values_by_name[value.name].number != value.number:
            problems.append("%s: %s is %d" % (name, value.name, value.number))
        compared += 1


for file in ours.file:
    if file.package == "google.protobuf":
        continue
    folder = root / file.package.replace(".", "/")
    for module in sorted(folder.glob("*_pb2.py")):
        importlib.import_module("%s.%s" % (file.package, module.stem))
    if file.package == "google.rpc":
        importlib.import_module("google.rpc.status_pb2")
    for message in file.message_type:
        compare(file.package, message)
    for enum in file.enum_type:
        compare_enum(file.package, enum)
print("\n".join(problems) or "equal: %d fields and values" % compared)
