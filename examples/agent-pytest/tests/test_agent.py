"""The agent under test: no model, no cloud, and every failure on order."""

import pytest
from agent import Agent
from daytona.common.errors import DaytonaError

pytestmark = pytest.mark.filterwarnings("ignore")


def says(*programs: str):
    """A model that has its programs ready."""
    return lambda task, said: programs[min(len(said), len(programs) - 1)]


@pytest.mark.parametrize("number", range(8))
def test_a_program_that_works_solves_the_task(sandyard_client, number):
    with Agent(sandyard_client, says(f"echo $(({number} * 7))")) as agent:
        assert agent.solve("multiply").output == f"{number * 7}\n"


def test_the_agent_learns_from_a_failure(sandyard_client):
    with Agent(sandyard_client, says("cat answer.txt", "echo 42 > answer.txt; cat answer.txt")) as agent:
        outcome = agent.solve("find the answer")
    assert outcome.solved
    assert len(outcome.attempts) == 2


def test_the_agent_gives_up_in_the_end(sandyard_client):
    with Agent(sandyard_client, says("false"), attempts=2) as agent:
        assert not agent.solve("the impossible").solved


def test_a_busy_service_is_asked_again(sandyard_client, sandyard_faults):
    sandyard_faults.add("status", on={"operation": "ExecuteCommand", "count": 3}, status=503, message="busy")
    with Agent(sandyard_client, says("echo done")) as agent:
        assert agent.solve("wait for it").output == "done\n"


def test_a_service_that_stays_away_is_an_error(sandyard_client, sandyard_faults):
    sandyard_faults.add("status", on={"operation": "ExecuteCommand", "count": 0}, status=503)
    with Agent(sandyard_client, says("echo never")) as agent:
        with pytest.raises(DaytonaError):
            agent.solve("anything")


def test_a_sandbox_that_was_killed_is_started_again(sandyard_client, sandyard_faults):
    sandyard_faults.add("die", on={"operation": "ExecuteCommand", "nth": 2})
    with Agent(sandyard_client, says("echo first", "echo again")) as agent:
        agent.solve("one")
        assert agent.solve("two").solved


def test_a_night_without_work_stops_the_sandbox_and_the_agent_wakes_it(sandyard_client, sandyard_clock):
    with Agent(sandyard_client, says("echo awake")) as agent:
        sandyard_clock.advance(hours=8)
        assert sandyard_client.get(agent.sandbox.id).state == "stopped"
        assert agent.solve("good morning").output == "awake\n"


def test_the_agent_labels_what_it_makes_and_leaves_nothing(sandyard, sandyard_client):
    with Agent(sandyard_client, says("true")) as agent:
        agent.solve("nothing")
    created = sandyard.journal(operation="createSandbox")
    assert len(created) == 1
    assert '"made-by"' in created[0]["requestBody"].replace("'", '"')
    assert not [box for box in sandyard_client.list() if box.state != "destroying"]
