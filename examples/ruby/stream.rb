# frozen_string_literal: true

# Watch a build while it runs: each line goes to the stream it was written to, as soon as it is there.
require 'daytona'

BUILD = <<~SHELL
  (
  for part in parser planner runtime; do
    echo "compiling $part"
    sleep 1
    echo "warning: $part has no tests" >&2
  done
  exit 3
  )
SHELL

$stdout.sync = true
daytona = Daytona::Daytona.new
sandbox = daytona.create
begin
  process = sandbox.process
  process.create_session('build')
  request = Daytona::SessionExecuteRequest.new(command: BUILD, run_async: true)
  build = process.execute_session_command(session_id: 'build', req: request)
  process.get_session_command_logs_async(
    session_id: 'build',
    command_id: build.cmd_id,
    on_stdout: ->(text) { $stdout.print text },
    on_stderr: ->(text) { $stderr.print text }
  )
  finished = process.get_session_command(session_id: 'build', command_id: build.cmd_id)
  puts "the build ended with #{finished.exit_code}"
ensure
  daytona.delete(sandbox)
end
