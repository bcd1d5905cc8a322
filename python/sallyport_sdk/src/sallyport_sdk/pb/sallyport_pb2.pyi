from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

CODE_DENIED: Code
CODE_EXHAUSTED: Code
CODE_INVALID: Code
CODE_UNAVAILABLE: Code
CODE_UNIMPLEMENTED: Code
CODE_UNSPECIFIED: Code
DESCRIPTOR: _descriptor.FileDescriptor
LEVEL_ALERT: Level
LEVEL_INFO: Level
LEVEL_UNSPECIFIED: Level
LEVEL_WARN: Level

class Anomaly(_message.Message):
    __slots__ = ["code", "level", "message"]
    CODE_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    code: str
    level: Level
    message: str
    def __init__(self, level: _Optional[_Union[Level, str]] = ..., code: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class Bounds(_message.Message):
    __slots__ = ["kind", "max_params", "max_ttl_seconds"]
    KIND_FIELD_NUMBER: _ClassVar[int]
    MAX_PARAMS_FIELD_NUMBER: _ClassVar[int]
    MAX_TTL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    kind: str
    max_params: bytes
    max_ttl_seconds: int
    def __init__(self, kind: _Optional[str] = ..., max_params: _Optional[bytes] = ..., max_ttl_seconds: _Optional[int] = ...) -> None: ...

class Cancel(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class ConfigureRequest(_message.Message):
    __slots__ = ["config", "host_capabilities"]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    HOST_CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    config: bytes
    host_capabilities: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, config: _Optional[bytes] = ..., host_capabilities: _Optional[_Iterable[str]] = ...) -> None: ...

class ConfigureResponse(_message.Message):
    __slots__ = ["error"]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    error: str
    def __init__(self, error: _Optional[str] = ...) -> None: ...

class HostFrame(_message.Message):
    __slots__ = ["cancel", "id", "issue", "timeout_ms", "vet"]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    ISSUE_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    VET_FIELD_NUMBER: _ClassVar[int]
    cancel: Cancel
    id: int
    issue: IssueRequest
    timeout_ms: int
    vet: VetRequest
    def __init__(self, id: _Optional[int] = ..., timeout_ms: _Optional[int] = ..., cancel: _Optional[_Union[Cancel, _Mapping]] = ..., vet: _Optional[_Union[VetRequest, _Mapping]] = ..., issue: _Optional[_Union[IssueRequest, _Mapping]] = ...) -> None: ...

class InfoRequest(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class InfoResponse(_message.Message):
    __slots__ = ["capabilities", "kinds", "name", "version"]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    KINDS_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    capabilities: _containers.RepeatedScalarFieldContainer[str]
    kinds: _containers.RepeatedScalarFieldContainer[str]
    name: str
    version: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., kinds: _Optional[_Iterable[str]] = ..., capabilities: _Optional[_Iterable[str]] = ...) -> None: ...

class IssueRequest(_message.Message):
    __slots__ = ["bounds", "requested"]
    BOUNDS_FIELD_NUMBER: _ClassVar[int]
    REQUESTED_FIELD_NUMBER: _ClassVar[int]
    bounds: Bounds
    requested: Scope
    def __init__(self, requested: _Optional[_Union[Scope, _Mapping]] = ..., bounds: _Optional[_Union[Bounds, _Mapping]] = ...) -> None: ...

class IssueResponse(_message.Message):
    __slots__ = ["anomalies", "expires_at_unix", "handle", "scope", "value"]
    ANOMALIES_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_UNIX_FIELD_NUMBER: _ClassVar[int]
    HANDLE_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    anomalies: _containers.RepeatedCompositeFieldContainer[Anomaly]
    expires_at_unix: int
    handle: str
    scope: Scope
    value: bytes
    def __init__(self, scope: _Optional[_Union[Scope, _Mapping]] = ..., value: _Optional[bytes] = ..., expires_at_unix: _Optional[int] = ..., handle: _Optional[str] = ..., anomalies: _Optional[_Iterable[_Union[Anomaly, _Mapping]]] = ...) -> None: ...

class PluginFrame(_message.Message):
    __slots__ = ["id", "issue", "refusal", "vet"]
    ID_FIELD_NUMBER: _ClassVar[int]
    ISSUE_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    VET_FIELD_NUMBER: _ClassVar[int]
    id: int
    issue: IssueResponse
    refusal: Refusal
    vet: VetResponse
    def __init__(self, id: _Optional[int] = ..., refusal: _Optional[_Union[Refusal, _Mapping]] = ..., vet: _Optional[_Union[VetResponse, _Mapping]] = ..., issue: _Optional[_Union[IssueResponse, _Mapping]] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ["code", "reason"]
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    code: Code
    reason: str
    def __init__(self, code: _Optional[_Union[Code, str]] = ..., reason: _Optional[str] = ...) -> None: ...

class Scope(_message.Message):
    __slots__ = ["kind", "params", "ttl_seconds"]
    KIND_FIELD_NUMBER: _ClassVar[int]
    PARAMS_FIELD_NUMBER: _ClassVar[int]
    TTL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    kind: str
    params: bytes
    ttl_seconds: int
    def __init__(self, kind: _Optional[str] = ..., params: _Optional[bytes] = ..., ttl_seconds: _Optional[int] = ...) -> None: ...

class VetRequest(_message.Message):
    __slots__ = ["scope"]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    scope: Scope
    def __init__(self, scope: _Optional[_Union[Scope, _Mapping]] = ...) -> None: ...

class VetResponse(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class Code(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class Level(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []
