from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

CLASS_CPU: Class
CLASS_GPU: Class
CLASS_SWITCH: Class
CLASS_UNSPECIFIED: Class
CODE_CONFLICT: Code
CODE_DENIED: Code
CODE_EXHAUSTED: Code
CODE_INVALID: Code
CODE_NOT_FOUND: Code
CODE_UNAVAILABLE: Code
CODE_UNIMPLEMENTED: Code
CODE_UNSPECIFIED: Code
DESCRIPTOR: _descriptor.FileDescriptor
LEVEL_ALERT: Level
LEVEL_INFO: Level
LEVEL_UNSPECIFIED: Level
LEVEL_WARN: Level
RESULT_FAIL: Result
RESULT_PASS: Result
RESULT_SKIP: Result
RESULT_UNSPECIFIED: Result
URGENCY_ELEVATED: Urgency
URGENCY_HIGH: Urgency
URGENCY_LOW: Urgency
URGENCY_UNSPECIFIED: Urgency

class Affected(_message.Message):
    __slots__ = ["rows"]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    rows: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, rows: _Optional[_Iterable[int]] = ...) -> None: ...

class Anomaly(_message.Message):
    __slots__ = ["code", "level", "message"]
    CODE_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    code: str
    level: Level
    message: str
    def __init__(self, level: _Optional[_Union[Level, str]] = ..., code: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class BodyChunk(_message.Message):
    __slots__ = ["data", "more"]
    DATA_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    more: bool
    def __init__(self, data: _Optional[bytes] = ..., more: bool = ...) -> None: ...

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

class Check(_message.Message):
    __slots__ = ["expected", "name", "reason", "result", "section", "seen"]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    SECTION_FIELD_NUMBER: _ClassVar[int]
    SEEN_FIELD_NUMBER: _ClassVar[int]
    expected: str
    name: str
    reason: str
    result: Result
    section: str
    seen: str
    def __init__(self, name: _Optional[str] = ..., expected: _Optional[str] = ..., seen: _Optional[str] = ..., result: _Optional[_Union[Result, str]] = ..., reason: _Optional[str] = ..., section: _Optional[str] = ...) -> None: ...

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

class Credit(_message.Message):
    __slots__ = ["bytes"]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    bytes: int
    def __init__(self, bytes: _Optional[int] = ...) -> None: ...

class Done(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class Emit(_message.Message):
    __slots__ = ["data", "type"]
    class DataEntry(_message.Message):
        __slots__ = ["key", "value"]
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    DATA_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    data: _containers.ScalarMap[str, str]
    type: str
    def __init__(self, type: _Optional[str] = ..., data: _Optional[_Mapping[str, str]] = ...) -> None: ...

class Exec(_message.Message):
    __slots__ = ["statements"]
    STATEMENTS_FIELD_NUMBER: _ClassVar[int]
    statements: _containers.RepeatedCompositeFieldContainer[Statement]
    def __init__(self, statements: _Optional[_Iterable[_Union[Statement, _Mapping]]] = ...) -> None: ...

class GateRequest(_message.Message):
    __slots__ = ["gate", "question"]
    GATE_FIELD_NUMBER: _ClassVar[int]
    QUESTION_FIELD_NUMBER: _ClassVar[int]
    gate: str
    question: bytes
    def __init__(self, gate: _Optional[str] = ..., question: _Optional[bytes] = ...) -> None: ...

class GateResponse(_message.Message):
    __slots__ = ["allow", "reason"]
    ALLOW_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    allow: bool
    reason: str
    def __init__(self, allow: bool = ..., reason: _Optional[str] = ...) -> None: ...

class Header(_message.Message):
    __slots__ = ["name", "value"]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: str
    def __init__(self, name: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class HookRequest(_message.Message):
    __slots__ = ["at_unix_ms", "data", "id", "position", "subject", "type"]
    AT_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    SUBJECT_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    at_unix_ms: int
    data: bytes
    id: str
    position: int
    subject: str
    type: str
    def __init__(self, id: _Optional[str] = ..., position: _Optional[int] = ..., type: _Optional[str] = ..., subject: _Optional[str] = ..., at_unix_ms: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class HookResponse(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class HostAnswer(_message.Message):
    __slots__ = ["affected", "done", "id", "kv_keys", "kv_value", "raised", "refusal", "rows", "vended", "welcome"]
    AFFECTED_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    KV_KEYS_FIELD_NUMBER: _ClassVar[int]
    KV_VALUE_FIELD_NUMBER: _ClassVar[int]
    RAISED_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    VENDED_FIELD_NUMBER: _ClassVar[int]
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    affected: Affected
    done: Done
    id: int
    kv_keys: KvKeys
    kv_value: KvValue
    raised: Raised
    refusal: Refusal
    rows: Rows
    vended: Vended
    welcome: Welcome
    def __init__(self, id: _Optional[int] = ..., welcome: _Optional[_Union[Welcome, _Mapping]] = ..., refusal: _Optional[_Union[Refusal, _Mapping]] = ..., done: _Optional[_Union[Done, _Mapping]] = ..., kv_value: _Optional[_Union[KvValue, _Mapping]] = ..., kv_keys: _Optional[_Union[KvKeys, _Mapping]] = ..., rows: _Optional[_Union[Rows, _Mapping]] = ..., affected: _Optional[_Union[Affected, _Mapping]] = ..., raised: _Optional[_Union[Raised, _Mapping]] = ..., vended: _Optional[_Union[Vended, _Mapping]] = ...) -> None: ...

class HostCall(_message.Message):
    __slots__ = ["emit", "exec", "id", "kv_delete", "kv_get", "kv_list", "kv_put", "log", "query", "vend"]
    EMIT_FIELD_NUMBER: _ClassVar[int]
    EXEC_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    KV_DELETE_FIELD_NUMBER: _ClassVar[int]
    KV_GET_FIELD_NUMBER: _ClassVar[int]
    KV_LIST_FIELD_NUMBER: _ClassVar[int]
    KV_PUT_FIELD_NUMBER: _ClassVar[int]
    LOG_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    RAISE_FIELD_NUMBER: _ClassVar[int]
    VEND_FIELD_NUMBER: _ClassVar[int]
    emit: Emit
    exec: Exec
    id: int
    kv_delete: KvDelete
    kv_get: KvGet
    kv_list: KvList
    kv_put: KvPut
    log: Log
    query: Query
    vend: Vend
    def __init__(self, id: _Optional[int] = ..., log: _Optional[_Union[Log, _Mapping]] = ..., kv_get: _Optional[_Union[KvGet, _Mapping]] = ..., kv_put: _Optional[_Union[KvPut, _Mapping]] = ..., kv_delete: _Optional[_Union[KvDelete, _Mapping]] = ..., kv_list: _Optional[_Union[KvList, _Mapping]] = ..., query: _Optional[_Union[Query, _Mapping]] = ..., exec: _Optional[_Union[Exec, _Mapping]] = ..., emit: _Optional[_Union[Emit, _Mapping]] = ..., vend: _Optional[_Union[Vend, _Mapping]] = ..., **kwargs) -> None: ...

class HostFrame(_message.Message):
    __slots__ = ["cancel", "chunk", "credit", "gate", "hook", "id", "issue", "route", "timeout_ms", "vet"]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    GATE_FIELD_NUMBER: _ClassVar[int]
    HOOK_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    ISSUE_FIELD_NUMBER: _ClassVar[int]
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    VET_FIELD_NUMBER: _ClassVar[int]
    cancel: Cancel
    chunk: BodyChunk
    credit: Credit
    gate: GateRequest
    hook: HookRequest
    id: int
    issue: IssueRequest
    route: RouteRequest
    timeout_ms: int
    vet: VetRequest
    def __init__(self, id: _Optional[int] = ..., timeout_ms: _Optional[int] = ..., cancel: _Optional[_Union[Cancel, _Mapping]] = ..., vet: _Optional[_Union[VetRequest, _Mapping]] = ..., issue: _Optional[_Union[IssueRequest, _Mapping]] = ..., route: _Optional[_Union[RouteRequest, _Mapping]] = ..., chunk: _Optional[_Union[BodyChunk, _Mapping]] = ..., credit: _Optional[_Union[Credit, _Mapping]] = ..., hook: _Optional[_Union[HookRequest, _Mapping]] = ..., gate: _Optional[_Union[GateRequest, _Mapping]] = ...) -> None: ...

class HostFrames(_message.Message):
    __slots__ = ["frames"]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    frames: _containers.RepeatedCompositeFieldContainer[HostFrame]
    def __init__(self, frames: _Optional[_Iterable[_Union[HostFrame, _Mapping]]] = ...) -> None: ...

class InfoRequest(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class InfoResponse(_message.Message):
    __slots__ = ["capabilities", "kinds", "name", "roles", "version"]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    KINDS_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROLES_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    capabilities: _containers.RepeatedScalarFieldContainer[str]
    kinds: _containers.RepeatedScalarFieldContainer[str]
    name: str
    roles: _containers.RepeatedScalarFieldContainer[str]
    version: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., kinds: _Optional[_Iterable[str]] = ..., capabilities: _Optional[_Iterable[str]] = ..., roles: _Optional[_Iterable[str]] = ...) -> None: ...

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

class JudgeRequest(_message.Message):
    __slots__ = ["at_unix_ms", "evidence", "init_data", "name", "report_data", "unbound"]
    AT_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    INIT_DATA_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    REPORT_DATA_FIELD_NUMBER: _ClassVar[int]
    UNBOUND_FIELD_NUMBER: _ClassVar[int]
    at_unix_ms: int
    evidence: bytes
    init_data: bytes
    name: str
    report_data: bytes
    unbound: bool
    def __init__(self, name: _Optional[str] = ..., evidence: _Optional[bytes] = ..., report_data: _Optional[bytes] = ..., init_data: _Optional[bytes] = ..., unbound: bool = ..., at_unix_ms: _Optional[int] = ...) -> None: ...

class JudgeResponse(_message.Message):
    __slots__ = ["checks", "claims", "device_class", "init_data", "refusal", "report_data"]
    CHECKS_FIELD_NUMBER: _ClassVar[int]
    CLAIMS_FIELD_NUMBER: _ClassVar[int]
    DEVICE_CLASS_FIELD_NUMBER: _ClassVar[int]
    INIT_DATA_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    REPORT_DATA_FIELD_NUMBER: _ClassVar[int]
    checks: _containers.RepeatedCompositeFieldContainer[Check]
    claims: bytes
    device_class: Class
    init_data: bytes
    refusal: Refusal
    report_data: bytes
    def __init__(self, refusal: _Optional[_Union[Refusal, _Mapping]] = ..., device_class: _Optional[_Union[Class, str]] = ..., claims: _Optional[bytes] = ..., report_data: _Optional[bytes] = ..., init_data: _Optional[bytes] = ..., checks: _Optional[_Iterable[_Union[Check, _Mapping]]] = ...) -> None: ...

class KvDelete(_message.Message):
    __slots__ = ["if_version", "key"]
    IF_VERSION_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    if_version: int
    key: str
    def __init__(self, key: _Optional[str] = ..., if_version: _Optional[int] = ...) -> None: ...

class KvGet(_message.Message):
    __slots__ = ["key"]
    KEY_FIELD_NUMBER: _ClassVar[int]
    key: str
    def __init__(self, key: _Optional[str] = ...) -> None: ...

class KvKeys(_message.Message):
    __slots__ = ["keys", "more"]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    keys: _containers.RepeatedScalarFieldContainer[str]
    more: bool
    def __init__(self, keys: _Optional[_Iterable[str]] = ..., more: bool = ...) -> None: ...

class KvList(_message.Message):
    __slots__ = ["after", "limit", "prefix"]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    after: str
    limit: int
    prefix: str
    def __init__(self, prefix: _Optional[str] = ..., after: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class KvPut(_message.Message):
    __slots__ = ["if_version", "key", "value"]
    IF_VERSION_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    if_version: int
    key: str
    value: bytes
    def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ..., if_version: _Optional[int] = ...) -> None: ...

class KvValue(_message.Message):
    __slots__ = ["value", "version"]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    value: bytes
    version: int
    def __init__(self, value: _Optional[bytes] = ..., version: _Optional[int] = ...) -> None: ...

class Log(_message.Message):
    __slots__ = ["fields", "level", "message"]
    class Level(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = []
    class FieldsEntry(_message.Message):
        __slots__ = ["key", "value"]
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    LEVEL_DEBUG: Log.Level
    LEVEL_ERROR: Log.Level
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    LEVEL_INFO: Log.Level
    LEVEL_UNSPECIFIED: Log.Level
    LEVEL_WARN: Log.Level
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    fields: _containers.ScalarMap[str, str]
    level: Log.Level
    message: str
    def __init__(self, level: _Optional[_Union[Log.Level, str]] = ..., message: _Optional[str] = ..., fields: _Optional[_Mapping[str, str]] = ...) -> None: ...

class NotifyRequest(_message.Message):
    __slots__ = ["at_unix_ms", "event_id", "fields", "kind", "text", "title", "urgency"]
    class FieldsEntry(_message.Message):
        __slots__ = ["key", "value"]
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    AT_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    URGENCY_FIELD_NUMBER: _ClassVar[int]
    at_unix_ms: int
    event_id: str
    fields: _containers.ScalarMap[str, str]
    kind: str
    text: str
    title: str
    urgency: Urgency
    def __init__(self, event_id: _Optional[str] = ..., kind: _Optional[str] = ..., urgency: _Optional[_Union[Urgency, str]] = ..., title: _Optional[str] = ..., text: _Optional[str] = ..., fields: _Optional[_Mapping[str, str]] = ..., at_unix_ms: _Optional[int] = ...) -> None: ...

class NotifyResponse(_message.Message):
    __slots__ = ["refusal"]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    refusal: Refusal
    def __init__(self, refusal: _Optional[_Union[Refusal, _Mapping]] = ...) -> None: ...

class PluginFrame(_message.Message):
    __slots__ = ["chunk", "credit", "gate", "hook", "id", "issue", "refusal", "route", "vet"]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    GATE_FIELD_NUMBER: _ClassVar[int]
    HOOK_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    ISSUE_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    VET_FIELD_NUMBER: _ClassVar[int]
    chunk: BodyChunk
    credit: Credit
    gate: GateResponse
    hook: HookResponse
    id: int
    issue: IssueResponse
    refusal: Refusal
    route: RouteResponse
    vet: VetResponse
    def __init__(self, id: _Optional[int] = ..., refusal: _Optional[_Union[Refusal, _Mapping]] = ..., vet: _Optional[_Union[VetResponse, _Mapping]] = ..., issue: _Optional[_Union[IssueResponse, _Mapping]] = ..., route: _Optional[_Union[RouteResponse, _Mapping]] = ..., chunk: _Optional[_Union[BodyChunk, _Mapping]] = ..., credit: _Optional[_Union[Credit, _Mapping]] = ..., hook: _Optional[_Union[HookResponse, _Mapping]] = ..., gate: _Optional[_Union[GateResponse, _Mapping]] = ...) -> None: ...

class PluginFrames(_message.Message):
    __slots__ = ["frames"]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    frames: _containers.RepeatedCompositeFieldContainer[PluginFrame]
    def __init__(self, frames: _Optional[_Iterable[_Union[PluginFrame, _Mapping]]] = ...) -> None: ...

class Principal(_message.Message):
    __slots__ = ["id", "kind", "name", "role"]
    ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    id: str
    kind: str
    name: str
    role: str
    def __init__(self, id: _Optional[str] = ..., kind: _Optional[str] = ..., name: _Optional[str] = ..., role: _Optional[str] = ...) -> None: ...

class Query(_message.Message):
    __slots__ = ["max_rows", "statement"]
    MAX_ROWS_FIELD_NUMBER: _ClassVar[int]
    STATEMENT_FIELD_NUMBER: _ClassVar[int]
    max_rows: int
    statement: Statement
    def __init__(self, statement: _Optional[_Union[Statement, _Mapping]] = ..., max_rows: _Optional[int] = ...) -> None: ...

class Raise(_message.Message):
    __slots__ = ["idempotency_key", "location", "reason", "sha256", "source", "value"]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    LOCATION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    idempotency_key: str
    location: str
    reason: str
    sha256: bytes
    source: str
    value: bytes
    def __init__(self, value: _Optional[bytes] = ..., sha256: _Optional[bytes] = ..., source: _Optional[str] = ..., location: _Optional[str] = ..., reason: _Optional[str] = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class Raised(_message.Message):
    __slots__ = ["matches", "record"]
    MATCHES_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    matches: int
    record: str
    def __init__(self, record: _Optional[str] = ..., matches: _Optional[int] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ["code", "reason"]
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    code: Code
    reason: str
    def __init__(self, code: _Optional[_Union[Code, str]] = ..., reason: _Optional[str] = ...) -> None: ...

class RevokeRequest(_message.Message):
    __slots__ = ["handle", "idempotency_id", "kind", "reason", "value"]
    HANDLE_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    handle: str
    idempotency_id: str
    kind: str
    reason: str
    value: bytes
    def __init__(self, kind: _Optional[str] = ..., handle: _Optional[str] = ..., value: _Optional[bytes] = ..., reason: _Optional[str] = ..., idempotency_id: _Optional[str] = ...) -> None: ...

class RevokeResponse(_message.Message):
    __slots__ = ["refusal"]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    refusal: Refusal
    def __init__(self, refusal: _Optional[_Union[Refusal, _Mapping]] = ...) -> None: ...

class RouteRequest(_message.Message):
    __slots__ = ["body", "headers", "method", "more", "path", "principal", "query", "request_id"]
    BODY_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    body: bytes
    headers: _containers.RepeatedCompositeFieldContainer[Header]
    method: str
    more: bool
    path: str
    principal: Principal
    query: str
    request_id: str
    def __init__(self, method: _Optional[str] = ..., path: _Optional[str] = ..., query: _Optional[str] = ..., headers: _Optional[_Iterable[_Union[Header, _Mapping]]] = ..., principal: _Optional[_Union[Principal, _Mapping]] = ..., body: _Optional[bytes] = ..., more: bool = ..., request_id: _Optional[str] = ...) -> None: ...

class RouteResponse(_message.Message):
    __slots__ = ["body", "headers", "more", "status"]
    BODY_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    body: bytes
    headers: _containers.RepeatedCompositeFieldContainer[Header]
    more: bool
    status: int
    def __init__(self, status: _Optional[int] = ..., headers: _Optional[_Iterable[_Union[Header, _Mapping]]] = ..., body: _Optional[bytes] = ..., more: bool = ...) -> None: ...

class Row(_message.Message):
    __slots__ = ["values"]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedCompositeFieldContainer[Value]
    def __init__(self, values: _Optional[_Iterable[_Union[Value, _Mapping]]] = ...) -> None: ...

class Rows(_message.Message):
    __slots__ = ["columns", "more", "rows"]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    columns: _containers.RepeatedScalarFieldContainer[str]
    more: bool
    rows: _containers.RepeatedCompositeFieldContainer[Row]
    def __init__(self, columns: _Optional[_Iterable[str]] = ..., rows: _Optional[_Iterable[_Union[Row, _Mapping]]] = ..., more: bool = ...) -> None: ...

class Scope(_message.Message):
    __slots__ = ["kind", "params", "ttl_seconds"]
    KIND_FIELD_NUMBER: _ClassVar[int]
    PARAMS_FIELD_NUMBER: _ClassVar[int]
    TTL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    kind: str
    params: bytes
    ttl_seconds: int
    def __init__(self, kind: _Optional[str] = ..., params: _Optional[bytes] = ..., ttl_seconds: _Optional[int] = ...) -> None: ...

class StartRequest(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class StartResponse(_message.Message):
    __slots__ = ["error"]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    error: str
    def __init__(self, error: _Optional[str] = ...) -> None: ...

class Statement(_message.Message):
    __slots__ = ["arguments", "sql"]
    ARGUMENTS_FIELD_NUMBER: _ClassVar[int]
    SQL_FIELD_NUMBER: _ClassVar[int]
    arguments: _containers.RepeatedCompositeFieldContainer[Value]
    sql: str
    def __init__(self, sql: _Optional[str] = ..., arguments: _Optional[_Iterable[_Union[Value, _Mapping]]] = ...) -> None: ...

class StopRequest(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class StopResponse(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class SupportsRevocationRequest(_message.Message):
    __slots__ = ["kind"]
    KIND_FIELD_NUMBER: _ClassVar[int]
    kind: str
    def __init__(self, kind: _Optional[str] = ...) -> None: ...

class SupportsRevocationResponse(_message.Message):
    __slots__ = ["supported"]
    SUPPORTED_FIELD_NUMBER: _ClassVar[int]
    supported: bool
    def __init__(self, supported: bool = ...) -> None: ...

class Value(_message.Message):
    __slots__ = ["blob", "integer", "real", "text"]
    BLOB_FIELD_NUMBER: _ClassVar[int]
    INTEGER_FIELD_NUMBER: _ClassVar[int]
    REAL_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    blob: bytes
    integer: int
    real: float
    text: str
    def __init__(self, integer: _Optional[int] = ..., real: _Optional[float] = ..., text: _Optional[str] = ..., blob: _Optional[bytes] = ...) -> None: ...

class Vend(_message.Message):
    __slots__ = ["idempotency_key", "kind", "params", "ttl_seconds"]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    PARAMS_FIELD_NUMBER: _ClassVar[int]
    TTL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    idempotency_key: str
    kind: str
    params: bytes
    ttl_seconds: int
    def __init__(self, kind: _Optional[str] = ..., params: _Optional[bytes] = ..., ttl_seconds: _Optional[int] = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class Vended(_message.Message):
    __slots__ = ["expires_at_unix", "grant", "private_key", "scope", "value"]
    EXPIRES_AT_UNIX_FIELD_NUMBER: _ClassVar[int]
    GRANT_FIELD_NUMBER: _ClassVar[int]
    PRIVATE_KEY_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    expires_at_unix: int
    grant: str
    private_key: bytes
    scope: Scope
    value: bytes
    def __init__(self, grant: _Optional[str] = ..., scope: _Optional[_Union[Scope, _Mapping]] = ..., value: _Optional[bytes] = ..., expires_at_unix: _Optional[int] = ..., private_key: _Optional[bytes] = ...) -> None: ...

class VetRequest(_message.Message):
    __slots__ = ["scope"]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    scope: Scope
    def __init__(self, scope: _Optional[_Union[Scope, _Mapping]] = ...) -> None: ...

class VetResponse(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class Welcome(_message.Message):
    __slots__ = ["max_outstanding", "services", "vend_kinds"]
    MAX_OUTSTANDING_FIELD_NUMBER: _ClassVar[int]
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    VEND_KINDS_FIELD_NUMBER: _ClassVar[int]
    max_outstanding: int
    services: _containers.RepeatedScalarFieldContainer[str]
    vend_kinds: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, services: _Optional[_Iterable[str]] = ..., vend_kinds: _Optional[_Iterable[str]] = ..., max_outstanding: _Optional[int] = ...) -> None: ...

class Code(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class Level(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class Urgency(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class Class(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class Result(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []
