import pytest
from mypackage.extension import MyExtension, TagRow
from sqlmodel import Session, SQLModel, create_engine


@pytest.fixture
def session():
    engine = create_engine("sqlite:///:memory:")
    SQLModel.metadata.create_all(engine)
    with Session(engine) as s:
        yield s


def test_get_models_registers_table():
    ext = MyExtension()
    assert TagRow in ext.get_models()


def test_router_has_expected_routes():
    ext = MyExtension()
    router = ext.get_router()
    paths = {r.path for r in router.routes}
    assert "/api/v1/myext/machines/{machine_id}/tags" in paths
