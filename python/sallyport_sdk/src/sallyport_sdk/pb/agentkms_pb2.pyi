from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

ANOMALY_LEVEL_ALERT: AnomalyLevel
ANOMALY_LEVEL_INFO: AnomalyLevel
ANOMALY_LEVEL_UNSPECIFIED: AnomalyLevel
ANOMALY_LEVEL_WARN: AnomalyLevel
DESCRIPTOR: _descriptor.FileDescriptor

class AnalyzeRequest(_message.Message):
    __slots__ = ["scope"]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    scope: Scope
    def __init__(self, scope: _Optional[_Union[Scope, _Mapping]] = ...) -> None: ...

class AnalyzeResponse(_message.Message):
    __slots__ = ["anomalies"]
    ANOMALIES_FIELD_NUMBER: _ClassVar[int]
    anomalies: _containers.RepeatedCompositeFieldContainer[ScopeAnomaly]
    def __init__(self, anomalies: _Optional[_Iterable[_Union[ScopeAnomaly, _Mapping]]] = ...) -> None: ...

class KindRequest(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class KindResponse(_message.Message):
    __slots__ = ["kind"]
    KIND_FIELD_NUMBER: _ClassVar[int]
    kind: str
    def __init__(self, kind: _Optional[str] = ...) -> None: ...

class NarrowRequest(_message.Message):
    __slots__ = ["bounds", "requested"]
    BOUNDS_FIELD_NUMBER: _ClassVar[int]
    REQUESTED_FIELD_NUMBER: _ClassVar[int]
    bounds: ScopeBounds
    requested: Scope
    def __init__(self, requested: _Optional[_Union[Scope, _Mapping]] = ..., bounds: _Optional[_Union[ScopeBounds, _Mapping]] = ...) -> None: ...

class NarrowResponse(_message.Message):
    __slots__ = ["error", "narrowed_scope"]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    NARROWED_SCOPE_FIELD_NUMBER: _ClassVar[int]
    error: str
    narrowed_scope: Scope
    def __init__(self, narrowed_scope: _Optional[_Union[Scope, _Mapping]] = ..., error: _Optional[str] = ...) -> None: ...

class PluginInfo(_message.Message):
    __slots__ = ["api_version", "kind", "name", "version"]
    API_VERSION_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    api_version: str
    kind: str
    name: str
    version: str
    def __init__(self, kind: _Optional[str] = ..., api_version: _Optional[str] = ..., name: _Optional[str] = ..., version: _Optional[str] = ...) -> None: ...

class Scope(_message.Message):
    __slots__ = ["expires_at", "issued_at", "kind", "params", "ttl_seconds"]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    ISSUED_AT_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    PARAMS_FIELD_NUMBER: _ClassVar[int]
    TTL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    expires_at: _timestamp_pb2.Timestamp
    issued_at: _timestamp_pb2.Timestamp
    kind: str
    params: _struct_pb2.Struct
    ttl_seconds: int
    def __init__(self, kind: _Optional[str] = ..., params: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., ttl_seconds: _Optional[int] = ..., issued_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., expires_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ScopeAnomaly(_message.Message):
    __slots__ = ["code", "level", "message"]
    CODE_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    code: str
    level: AnomalyLevel
    message: str
    def __init__(self, level: _Optional[_Union[AnomalyLevel, str]] = ..., code: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class ScopeBounds(_message.Message):
    __slots__ = ["kind", "max_params", "max_ttl_seconds"]
    KIND_FIELD_NUMBER: _ClassVar[int]
    MAX_PARAMS_FIELD_NUMBER: _ClassVar[int]
    MAX_TTL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    kind: str
    max_params: _struct_pb2.Struct
    max_ttl_seconds: int
    def __init__(self, kind: _Optional[str] = ..., max_params: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., max_ttl_seconds: _Optional[int] = ...) -> None: ...

class SerializeRequest(_message.Message):
    __slots__ = ["scope"]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    scope: Scope
    def __init__(self, scope: _Optional[_Union[Scope, _Mapping]] = ...) -> None: ...

class SerializeResponse(_message.Message):
    __slots__ = ["error", "provider_bytes"]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_BYTES_FIELD_NUMBER: _ClassVar[int]
    error: str
    provider_bytes: bytes
    def __init__(self, provider_bytes: _Optional[bytes] = ..., error: _Optional[str] = ...) -> None: ...

class ValidateRequest(_message.Message):
    __slots__ = ["scope"]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    scope: Scope
    def __init__(self, scope: _Optional[_Union[Scope, _Mapping]] = ...) -> None: ...

class ValidateResponse(_message.Message):
    __slots__ = ["error"]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    error: str
    def __init__(self, error: _Optional[str] = ...) -> None: ...

class VendRequest(_message.Message):
    __slots__ = ["scope"]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    scope: Scope
    def __init__(self, scope: _Optional[_Union[Scope, _Mapping]] = ...) -> None: ...

class VendResponse(_message.Message):
    __slots__ = ["credential", "error"]
    CREDENTIAL_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    credential: VendedCredential
    error: str
    def __init__(self, credential: _Optional[_Union[VendedCredential, _Mapping]] = ..., error: _Optional[str] = ...) -> None: ...

class VendedCredential(_message.Message):
    __slots__ = ["api_key", "expires_at", "provider_token_hash", "uuid"]
    API_KEY_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_TOKEN_HASH_FIELD_NUMBER: _ClassVar[int]
    UUID_FIELD_NUMBER: _ClassVar[int]
    api_key: bytes
    expires_at: _timestamp_pb2.Timestamp
    provider_token_hash: str
    uuid: str
    def __init__(self, api_key: _Optional[bytes] = ..., uuid: _Optional[str] = ..., provider_token_hash: _Optional[str] = ..., expires_at: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class AnomalyLevel(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []
