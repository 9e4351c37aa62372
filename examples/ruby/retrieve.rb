# frozen_string_literal: true

# Take a finished command's output, then look twice at the log of one that goes on.
require 'daytona'

def run(process, command, **options)
  request = Daytona::SessionExecuteRequest.new(command:, **options)
  process.execute_session_command(session_id: 'check', req: request)
end

daytona = Daytona::Daytona.new
sandbox = daytona.create
begin
  process = sandbox.process
  process.create_session('check')
  done = run(process, 'uname -s; ls /no-such-place')
  puts "exit code #{done.exit_code}"
  print "said: #{done.stdout}"
  print "complained: #{done.stderr}"

  clock = run(process, 'while sleep 0.5; do date +tick-%s; done', run_async: true)
  2.times do
    sleep 2
    logs = process.get_session_command_logs(session_id: 'check', command_id: clock.cmd_id)
    puts "#{logs.stdout.lines.size} ticks so far"
  end
ensure
  daytona.delete(sandbox)
end
